"""Modules, top-level await, and bundles of one file."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies import errors
from tests.actors.v8.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

# As esbuild 0.28 writes it for `--bundle --format=...` of a file that exports main.
CJS = """
var __defProp = Object.defineProperty;
var __export = (to, all) => { for (var name in all) __defProp(to, name, { get: all[name], enumerable: true }); };
var __toCommonJS = (mod) => Object.assign({}, { main: mod.main });
var agent_exports = {};
__export(agent_exports, { main: () => main });
module.exports = __toCommonJS(agent_exports);
async function main(input) { console.log("step 1"); return input.a + 1; }
"""
ESM = """
// agent.ts
async function main(input) {
  console.log("step 1");
  return input.a + 1;
}
export {
  main
};
"""
IIFE = """
"use strict";
(() => {
  // agent.ts
  console.log("step 1");
  globalThis.main = async (input) => input.a + 1;
})();
"""


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("const x = await Promise.resolve(5); x + 1", 6),
        ("await (async () => 7)()", 7),
        ("export default function (inputs) { return inputs.a + 1 }", 2),
        ("export default async (inputs) => inputs.a * 10", 10),
        ("export function main(inputs) { return inputs.a }", 1),
        ("export const main = async (inputs) => inputs.a\nconst z = await 1", 1),
        ("const go = (i) => i.a + 2; export { go as main }", 3),
        ("const go = (i) => i.a + 2; export { go as default }", 3),
        ("export default {a: 1}", {"a": 1}),
        ("export default class { static x = 1 }\n3", None),
        ("let total = 0; for await (const x of [1, Promise.resolve(2)]) total += x; total", 3),
        ("import.meta.url.startsWith('file:')", True),
        ("export const {a, ...rest} = {a: 1, b: 2}; [a, rest]", [1, {"b": 2}]),
        ("'await x'; `import ${1}`", "import 1"),
        ("export default { async main(inputs) { return inputs.a } }", 1),
        ("#!/usr/bin/env node\nawait 3", 3),
    ],
)
def test_the_value_of_a_module(run: Run, code: str, value: Any) -> None:
    result = run(code, {"a": 1})
    if value is None:
        assert isinstance(result.error, errors.GuestException)  # a class is not to be called
    else:
        assert result.unwrap() == value


@pytest.mark.parametrize("bundle", [CJS, ESM, IIFE], ids=["cjs", "esm", "iife"])
def test_a_bundle_of_one_file_runs_in_each_format(run: Run, bundle: str) -> None:
    result = run(bundle, {"a": 1})
    assert (result.unwrap(), result.stdout) == (2, "step 1\n")


@pytest.mark.parametrize(
    ("code", "where", "why"),
    [
        ("import fs from 'fs'", "1:1", "part of Node.js"),
        ("1;\nimport x from 'lodash'", "2:1", "esbuild --bundle"),
        ("await import('node:fs/promises')", "1:7", "part of Node.js"),
        ("const fs = require('fs')", "1:12", "part of Node.js"),
        ("export * from './other.js'", "1:1", "packages and files are not loaded"),
    ],
)
def test_what_is_not_there_is_named(run: Run, code: str, where: str, why: str) -> None:
    error = run(code).error
    assert isinstance(error, errors.GuestException)
    assert error.where == where
    assert why in error.what


def test_an_error_in_a_module_has_the_users_line_and_column(run: Run) -> None:
    assert run("const x = await 1; nope(x)").error.where == "1:20"  # type: ignore[union-attr]
    assert run("await 1;\nexport const y = 2;\n  nope(y)").error.where == "3:3"  # type: ignore[union-attr]
    assert run("await 1; missing.x").error.where == "1:10"  # type: ignore[union-attr]


def test_a_module_that_does_not_parse_has_a_place(run: Run) -> None:
    error = run("await 1;\nlet x = ;").error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == "2:9"


def test_nothing_of_a_script_runs_twice(run: Run) -> None:
    result = run("console.log('once'); JSON.parse('{') // await")
    assert result.stdout == "once\n"
    assert isinstance(result.error, errors.GuestException)
