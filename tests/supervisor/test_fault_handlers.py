"""A process that uses Wasmtime outlives the start of whatever wants to report its crashes."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, faulthandler, sys
import wasmtime
from runvisor.supervisor.fault_handlers import kept_fault_handlers

def trap():
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, '(module (func (export "f") unreachable))')
    try:
        wasmtime.Instance(store, module, []).exports(store)["f"](store)
    except wasmtime.Trap:
        print("trapped", flush=True)

trap()
with kept_fault_handlers() if sys.argv[1] == "kept" else contextlib.nullcontext():
    faulthandler.enable()  # as Ray does when it starts
trap()
"""


@pytest.mark.parametrize(("how", "traps"), [("kept", 2), ("lost", 1)])
def test_a_trap_stays_an_error_when_another_handler_was_put_before(how: str, traps: int) -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=100, check=False)
    assert ran.stdout.count("trapped") == traps, ran.stderr
    assert (ran.returncode == 0) == (how == "kept")


def test_where_nobody_heard_before_a_new_handler_stays() -> None:
    program = (
        "import faulthandler, os, signal\n"
        "from runvisor.supervisor.fault_handlers import kept_fault_handlers\n"
        "with kept_fault_handlers(): faulthandler.enable()\n"
        "os.kill(os.getpid(), signal.SIGILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert "Fatal Python error: Illegal instruction" in ran.stderr
