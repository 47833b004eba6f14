from __future__ import annotations

import time
from typing import Any

import pytest

from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.images.cpython import VERSION, build
from runvisor.actors.wasm.images.recipes import remedy
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.wasm.conftest import Run, run_on

pytestmark = pytest.mark.root


def test_the_value_is_the_last_expression(python: Run) -> None:
    assert python("x = 20\nx * 2 + 2").value == 42


def test_main_takes_the_inputs(python: Run) -> None:
    assert python("def main(inputs):\n    return inputs['n'] + 1", {"n": 41}).value == 42


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**80,
        -(2**80),
        1.5,
        float("inf"),
        "text \u00e9 \U0001f600",
        b"\0\xff",
        [1, [2, {"a": None}]],
        {1: 2, "b": b"x"},
    ],
)
def test_values_go_in_and_come_out_as_they_are(python: Run, value: Any) -> None:
    assert python("inputs", value).value == value


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("{3, 1, 2}", [1, 2, 3]),
        ("(1, 2)", [1, 2]),
        ("import datetime\ndatetime.date(2026, 1, 2)", "2026-01-02"),
        ("import decimal\ndecimal.Decimal('1.10')", "1.10"),
        ("range(3)", [0, 1, 2]),
    ],
)
def test_values_take_the_same_plain_forms_as_in_native_python(python: Run, code: str, value: Any) -> None:
    assert python(code).value == value


def test_a_value_without_a_plain_form_is_refused_by_name(python: Run) -> None:
    error = python("{'f': len}").error
    assert isinstance(error, errors.UnserializableValue)
    assert "builtin_function_or_method" in error.what
    assert error.where == "value['f']"


def test_a_value_that_is_too_large_is_refused(python: Run) -> None:
    assert isinstance(python("'x' * (25 << 20)").error, errors.OutputLimitExceeded)


def test_an_instance_knows_nothing_of_the_one_before(python: Run) -> None:
    python("import json, builtins\njson.mark = builtins.mark = 1")
    assert python("import json, builtins\nhasattr(json, 'mark') or hasattr(builtins, 'mark')").value is False


def test_an_instance_made_ahead_has_the_limits_of_the_task_that_gets_it(python: Run) -> None:
    large = "len(bytearray(96 << 20))"
    assert python(large, memory_bytes=256 * MiB).value == 96 << 20
    assert isinstance(python(large, memory_bytes=32 * MiB).error, errors.MemoryLimitExceeded)
    assert isinstance(python("while True: pass", timeout_s=0.05).error, errors.TimeLimitExceeded)
    assert python(large, memory_bytes=256 * MiB).value == 96 << 20


def test_what_it_prints_comes_back_apart_from_errors(python: Run) -> None:
    result = python("import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three', end='')")
    assert (result.stdout, result.stderr) == ("one\nthree", "two\n")


def test_what_was_printed_survives_an_endless_loop(python: Run) -> None:
    result = python("print('began')\nwhile True:\n    pass", timeout_s=0.3)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.stdout == "began\n"


def test_printing_more_than_allowed_ends_it(python: Run) -> None:
    result = python("while True:\n    print('x' * 100)", output_bytes=1000)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert len(result.stdout) == 1000


def test_printing_past_the_cap_cannot_be_caught(python: Run) -> None:
    code = "try:\n    print('x' * 5000, flush=True)\nexcept BaseException:\n    pass\n42"
    assert isinstance(python(code, output_bytes=1000).error, errors.OutputLimitExceeded)


def test_a_traceback_shows_the_lines_of_the_task_only(python: Run) -> None:
    error = python("import json\n\ndef load(text):\n    return json.loads(text)\n\nload('{')").error
    assert isinstance(error, errors.GuestException)
    assert error.what.startswith("JSONDecodeError")
    assert error.where == "line 4"
    assert [line.strip() for line in error.details["traceback"].splitlines() if "File" in line] == [
        'File "<task>", line 6, in <module>',
        'File "<task>", line 4, in load',
    ]


def test_a_traceback_calls_the_task_by_its_label(python: Run) -> None:
    assert 'File "<report>", line 1' in python("1 / 0", label="report").error.details["traceback"]


def test_a_syntax_error_has_its_place(python: Run) -> None:
    error = python("x = 1\ndef f(:\n    pass").error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == "2:7"


def test_a_missing_import_says_what_there_is(python: Run) -> None:
    error = python("import numpy").error
    assert isinstance(error, errors.GuestException)
    assert error.what == "ModuleNotFoundError: No module named 'numpy'"
    assert "json" in error.remedy
    assert "python/native" in error.remedy


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time\ntime.sleep(60)", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')"]
)
def test_the_deadline_ends_loops_sleep_and_long_calls_in_c(python: Run, code: str) -> None:
    began = time.monotonic()
    assert isinstance(python(code, timeout_s=0.3).error, errors.TimeLimitExceeded)
    assert time.monotonic() - began < 10


def test_memory_is_bounded_beyond_what_the_interpreter_takes(python: Run) -> None:
    assert python("len(bytearray(8 << 20))", memory_bytes=16 * MiB).value == 8 << 20
    assert isinstance(python("bytearray(64 << 20)", memory_bytes=16 * MiB).error, errors.MemoryLimitExceeded)


def test_instructions_are_counted_and_bounded(python: Run) -> None:
    first, second = (python("sum(i * i for i in range(1000))", instructions=10**9) for _ in range(2))
    assert first.value == second.value == 332833500
    assert first.usage.instructions
    assert "instructions" in first.isolation.limits_enforced
    result = python("while True: pass", instructions=10**7)
    assert isinstance(result.error, errors.InstructionLimitExceeded)


def test_recursion_ends_as_an_exception(python: Run) -> None:
    error = python("def f(n):\n    return f(n + 1)\nf(0)").error
    assert error.what.startswith("RecursionError")
    error = python("x = []\nfor _ in range(100_000):\n    x = [x]\nrepr(x)").error
    assert isinstance(error, errors.GuestException)


def test_random_numbers_differ_from_run_to_run(python: Run) -> None:
    code = "import random, secrets, uuid\n[random.random(), secrets.token_hex(4), str(uuid.uuid4())]"
    first, second = python(code).value, python(code).value
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_the_environment_is_the_grants(python: Run) -> None:
    assert python("import os\ndict(os.environ)", env={"KEY": "value"}).value == {"KEY": "value"}


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "open('made', 'w')",
        "import os\nos.listdir('/')",
        "import socket\nsocket.socket()",
        "import os\nos.system('true')",
        "import subprocess\nsubprocess.run(['true'])",
        "import ctypes",
        "import threading\nthreading.Thread(target=print).start()",
        "async def main():\n    return 1",
    ],
)
def test_there_are_no_files_sockets_processes_threads_or_event_loops(python: Run, code: str) -> None:
    assert isinstance(python(code).error, errors.GuestException)
    assert python("1 + 1").value == 2


def test_there_is_no_standard_input(python: Run) -> None:
    assert python("input()").error.what.startswith("EOFError")


def test_a_hostile_answer_is_the_guests_own_error(python: Run) -> None:
    forge = "import json\njson.dumps = lambda *_: {answer!r}\n1"
    for answer in (
        "nonsense",
        "[]",
        "[" * 100_000,
        '{"packed": "AAAA"}',
        '{"packed": 5}',
        '{"type": "ConfigError", "what": "x"}',
    ):
        assert isinstance(python(forge.format(answer=answer)).error, errors.GuestError), answer[:40]
    assert python("1 + 1").value == 2


def test_files_are_refused_before_anything_runs(python: Run, runtime: Any) -> None:
    with pytest.raises(errors.InvalidTask):
        run_on(runtime, Task("1", "python", files={"a": b""}), variant="cpython")


@pytest.mark.slow
def test_the_image_is_built_from_the_pinned_package(tmp_path: Any) -> None:
    pytest.importorskip("componentize_py")
    told: list[str] = []
    built = build(tmp_path, lambda doing, done: told.append(doing))
    assert built.files["python.wasm"].startswith(b"\0asm\x0d\0\1\0")
    assert b"PSF" in built.files["LICENSES.md"]
    assert int(built.facts["memory_bytes"]) > 1 * MiB
    assert any(VERSION in doing for doing in told)


def test_the_remedy_names_the_command() -> None:
    assert remedy("cpython") == "build it once: python -m runvisor.actors.wasm.images cpython"


def test_a_deterministic_task_finds_the_same_clocks_and_chance_and_counts_the_same(python: Run) -> None:
    code = (
        "import random, time, uuid, os\n"
        "[random.random(), time.time(), time.monotonic(), str(uuid.uuid4()), os.urandom(4), hash('a'), id(object())]"
    )
    first, second = (python(code, deterministic=True) for _ in range(2))
    assert first.error is None
    assert first.value == second.value
    assert first.usage.instructions == second.usage.instructions
    assert "deterministic" in first.isolation.limits_enforced
    assert python("import time\ntime.sleep(1000)\n1", deterministic=True).value == 1


def test_a_task_is_called_off_while_it_runs(runtime: WasmRuntime, python: Run) -> None:
    task = Task("print('began')\nwhile True:\n    pass", "python")
    watch = Watch(output=lambda *_: watch.cancellation.cancel())
    began = time.monotonic()
    result = runtime.execute(task, "cpython", Grant("tester", Trust.UNTRUSTED, task.permissions), watch)
    assert isinstance(result.error, errors.Cancelled)
    assert time.monotonic() - began < 10


def test_output_arrives_while_the_task_runs(runtime: WasmRuntime, python: Run) -> None:
    task = Task("import time\nprint('first')\ntime.sleep(0.3)\nprint('second')", "python")
    heard: list[tuple[float, bytes]] = []
    watch = Watch(output=lambda _, data: heard.append((time.monotonic(), data)))
    result = runtime.execute(task, "cpython", Grant("tester", Trust.UNTRUSTED, task.permissions), watch)
    assert [data for _, data in heard] == [b"first\n", b"second\n"]
    assert heard[1][0] - heard[0][0] > 0.2
    assert result.stdout == "first\nsecond\n"
