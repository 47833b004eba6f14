"""One V8 runtime for all of these tests; each task gets its own process anyway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.result import Result
from tests.actors.executing import execute

Run = Callable[..., Result]


@pytest.fixture(scope="package")
def runtime() -> Iterator[V8Runtime]:
    runtime = V8Runtime(PoolSize(minimum=3, maximum=6))
    runtime.start()
    yield runtime
    runtime.close()


@pytest.fixture
def run(runtime: V8Runtime) -> Run:
    def run(code: str, inputs: Any = None, language: str = "javascript", **permissions: Any) -> Result:
        return execute(runtime, code, language, "isolate", inputs, **permissions)

    return run


_UNJAILED = """
import json, os, sys
from runvisor.actors.v8 import guest
from runvisor.actors.v8.evaluation import Evaluation
from runvisor.policies.values import pack, to_json, unpack
guest.preload({})
bridge = guest.prepare({})
reply = Evaluation(bridge, {"code": sys.argv[1], "inputs": pack(json.loads(sys.argv[2]))}).answer()
if reply["op"] == "value":
    reply["value"] = to_json(unpack(reply["value"]))
os.write(3, json.dumps(reply).encode())
os._exit(0)
"""


@pytest.fixture
def run_unjailed(tmp_path: Any) -> Callable[..., Any]:
    """Run trusted code in a guest process without its jail, for what takes a network."""

    def run(code: str, inputs: Any = None) -> Any:
        with (tmp_path / "reply").open("w+b") as reply:
            command = [sys.executable, "-c", f"import os; os.dup2({reply.fileno()}, 3)\n" + _UNJAILED]
            subprocess.run([*command, code, json.dumps(inputs)], check=True, timeout=60, pass_fds=[reply.fileno()])
            reply.seek(0)
            answer = json.loads(reply.read())
        assert answer["op"] == "value", answer
        return answer["value"]

    return run
