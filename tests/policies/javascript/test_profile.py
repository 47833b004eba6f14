from __future__ import annotations

import pytest

from runvisor.policies.javascript.fitness import ARM, quickjs_fitness
from runvisor.policies.javascript.profile import objections

SHARED = [
    "[3, 1, 2].sort((a, b) => a - b).map((x) => x * 2)",
    "const main = async ({ rows }) => rows.filter((row) => row.ok).length",
    "class Stack { #items = []; push(x) { this.#items.push(x) } get size() { return this.#items.length } }",
    "JSON.stringify({ a: [1, 'b', null] })",
    "'a-b-c'.replace(/-(\\w)/g, (_, c) => c.toUpperCase())",
    "try { work() } catch (error) { if (error instanceof TypeError) throw error; }",
    "try { work() } catch { fallback() }",
    "new Date(0).toISOString() + Date.now()",
    "Math.max(1, Math.floor(2.5)) + Math.PI",
    "(255).toString(16) + String(1.5)",
    "setTimeout(() => console.log(new URL('http://a/b').host), 1)",
    "export default (inputs) => inputs",
]
ABSENT = {
    "await fetch('http://x')": "fetch",
    "new Intl.NumberFormat()": "Intl",
    "import fs from 'fs'": "import",
    "const fs = require('fs')": "require",
    "module.exports = 1": "module.exports",
    "crypto.randomUUID()": "crypto",
    "new WebAssembly.Module(x)": "WebAssembly",
    "new SharedArrayBuffer(8)": "SharedArrayBuffer",
}
UNEQUAL = [
    "Math.sin(1)",
    "const { sin } = Math",
    "2 ** 0.5",
    "(1.5).toString(3)",
    "(1234.5).toLocaleString()",
    "['b', 'a'].sort((a, b) => a.localeCompare(b))",
    "String(new Date())",
    "try { null.x } catch (e) { e.message }",
    "try { null.x } catch (e) { String(e) }",
    "try { null.x } catch ({ message }) { message }",
    "work().catch((e) => e.message)",
    "new Error('x').stack",
    "eval('1')",
    "globalThis['fet' + 'ch']",
    "new WeakRef({})",
    "/\\p{L}/u.test('a')",
    "export const a = 1",
]


@pytest.mark.parametrize("code", SHARED)
def test_ordinary_programs_are_inside(code: str) -> None:
    found = objections(code)
    assert (found.absent, found.unequal) == ("", "")


@pytest.mark.parametrize(("code", "name"), ABSENT.items())
def test_what_is_not_there_is_found(code: str, name: str) -> None:
    assert objections(code).absent == f"it uses {name}, which is not there"


@pytest.mark.parametrize("code", UNEQUAL)
def test_what_may_be_answered_differently_is_found(code: str) -> None:
    assert objections(code).unequal


def test_a_difference_matters_only_beside_another_arm() -> None:
    assert quickjs_fitness("Math.sin(1)", is_alone=False)[0].keys() == {ARM}
    unfit, found = quickjs_fitness("Math.sin(1)", is_alone=True)
    assert not unfit
    assert "Math.sin" in found
    assert quickjs_fitness("fetch(x)", is_alone=True)[0].keys() == {ARM}
