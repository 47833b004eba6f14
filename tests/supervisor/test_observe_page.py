"""The programs of docs/observe.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.policies.observations import ObservedTable
from runvisor.supervisor.client import Supervisor
from tests.actors.ebpf.observe.known import go, known_process, row_of

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "observe.md"
PROGRAMS: Final = {
    text.partition("\n")[0][3:]: text for text in re.findall(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
}

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.root,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]


def observed(supervisor: Supervisor, program: str, code: str) -> ObservedTable:
    """Observe Python that does something, from before that until it has ended."""
    with (
        known_process(code) as process,
        supervisor.observing(program=PROGRAMS[program], pid=process.pid) as observation,
    ):
        go(process)
        table = observation.result()
    assert table.ended == "target"
    return table


def test_files_that_are_opened(supervisor: Supervisor) -> None:
    table = observed(supervisor, "raw_tracepoint: sys_enter", "for _ in range(3): open('/etc/hostname').close()")
    assert row_of(table, path="/etc/hostname")["times"] == 3


def test_programs_that_are_started(supervisor: Supervisor) -> None:
    code = "for _ in range(2):\n    if os.fork() == 0: os.execv('/bin/true', ['true'])\n    os.wait()"
    table = observed(supervisor, "tracepoint: sched:sched_process_exec", code)
    assert table.to_dicts() == [{"program": "/bin/true", "starts": 2}]


LIBC: Final = "import ctypes\nlibc = ctypes.CDLL('libc.so.6')\n"


def test_how_much_a_process_asks_of_malloc(supervisor: Supervisor) -> None:
    code = LIBC + "for _ in range(50): libc.malloc(3000000)"
    row = row_of(observed(supervisor, "uprobe: libc:malloc", code), up_to_bytes=1 << 22)
    assert (row["calls"], row["asked_bytes"]) == (50, 50 * 3000000)


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_code_in_a_sandbox_is_observed_at_functions(supervisor: Supervisor, language: str) -> None:
    program = PROGRAMS["uretprobe: libc:malloc"]
    code = {"python": "len([bytes(70000) for _ in range(9)])", "javascript": "[...'123456789'].length"}[language]
    result, table = supervisor.observe_run(None, code, language, program=program)
    assert result.value == 9
    ((calls, refused),) = table.rows
    assert int(calls) > 0
    assert refused == 0


def test_how_often_malloc_gives_nothing(supervisor: Supervisor) -> None:
    code = LIBC + "libc.malloc.argtypes = [ctypes.c_size_t]\nfor _ in range(5): libc.malloc(1 << 62)"
    ((calls, refused),) = observed(supervisor, "uretprobe: libc:malloc", code).rows
    assert refused == 5
    assert int(calls) > 5


def test_each_program_of_the_page_is_tried() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{place}"' in text for place in PROGRAMS)
    assert len(PROGRAMS) == 4
