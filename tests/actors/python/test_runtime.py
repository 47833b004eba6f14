"""Python tasks: values, errors that speak of the user's lines, limits, and nothing left for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.policies import errors
from runvisor.policies.result import Result
from tests.actors.executing import execute

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    runtime = PythonRuntime(PoolSize(minimum=3, maximum=6))
    runtime.start()

    def run(code: str, inputs: Any = None, **permissions: Any) -> Result:
        return execute(runtime, code, "python", "native", inputs, **permissions)

    yield run
    runtime.close()


@pytest.mark.parametrize(
    ("code", "inputs", "value"),
    [
        ("1 + 1", None, 2),
        ("x = 3\nx * 2", None, 6),
        ("x = 3", None, None),
        ("inputs['a'] + 1", {"a": 1}, 2),
        ("def main(inputs):\n    return inputs * 2", 21, 42),
        ("def main():\n    return 7", None, 7),
        ("def main(n):\n    return n\nmain(5)", 1, 5),
        ("async def main(n):\n    return n + 1", 1, 2),
        ("2 ** 100", None, 2**100),
        ("b'bytes'", None, b"bytes"),
        ("{'k': (1, [2.5, None])}", None, {"k": [1, [2.5, None]]}),
        ("if __name__ == '__main__':\n    answer = 1\nanswer", None, 1),
        ("import sys\nsys.exit()", None, None),
    ],
)
def test_the_value_of_a_task(run: Run, code: str, inputs: Any, value: Any) -> None:
    assert run(code, inputs).unwrap() == value


def test_arrays_go_in_and_come_out(run: Run) -> None:
    value = run("inputs['a'].reshape(2, 3) * 2", {"a": np.arange(6)}).unwrap()
    np.testing.assert_array_equal(value, np.arange(6).reshape(2, 3) * 2)


def test_a_table_comes_out_as_columns(run: Run) -> None:
    assert run("import pandas as pd\npd.DataFrame({'a': [1, 2]})").unwrap() == {"a": [1, 2]}


def test_what_it_shows_comes_as_artifacts(run: Run) -> None:
    result = run("import pandas as pd\ndisplay('hello')\npd.DataFrame({'a': [1]})")
    assert result.value == {"a": [1]}
    assert [(artifact.name, artifact.mime) for artifact in result.artifacts] == [
        ("display-1.txt", "text/plain"),
        ("result.html", "text/html"),
        ("result.json", "application/json"),
    ]


def test_what_it_prints_is_kept_apart_from_its_value(run: Run) -> None:
    result = run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n'value'")
    assert (result.value, result.stdout, result.stderr) == ("value", "out\n", "err\n")


def test_output_below_python_is_captured_too(run: Run) -> None:
    assert run("import os\nos.write(1, b'raw')").stdout == "raw"


def test_a_traceback_shows_only_the_users_frames_with_their_lines(run: Run) -> None:
    result = run("import json\ndef parse(text):\n    return json.loads(text)\nparse('nope')")
    assert isinstance(result.error, errors.GuestException)
    assert result.error.where == "line 3"
    traceback = result.error.details["traceback"]
    assert "return json.loads(text)" in traceback
    assert "decoder.py" not in traceback
    assert "guest.py" not in traceback


def test_a_syntax_error_names_line_and_column(run: Run) -> None:
    error = run("x = 1\ndef f(:\n    pass").error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == "2:7"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("1 / 0", errors.GuestException),
        ("raise SystemExit(3)", errors.GuestException),
        ("import no_such_module", errors.GuestException),
        ("class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E", errors.GuestException),
        ("object()", errors.UnserializableValue),
        ("lambda: 1", errors.UnserializableValue),
        ("x = []\nx.append(x)\nx", errors.UnserializableValue),
        ("'\\ud800'", errors.UnserializableValue),
        ("import ctypes\nctypes.string_at(0)", errors.GuestCrashed),
        ("import os\nos._exit(3)", errors.GuestException),
        ("import os\nos.kill(os.getpid(), 9)\nos.abort()", errors.GuestCrashed),
        ("\x00", errors.GuestSyntaxError),
    ],
)
def test_each_way_to_fail_has_its_error(run: Run, code: str, kind: type[errors.RunvisorError]) -> None:
    assert type(run(code).error) is kind


def test_an_infinite_loop_ends_at_its_deadline(run: Run) -> None:
    result = run("print('before')\nwhile True: pass", timeout_s=0.3)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert 0.3 <= result.usage.wall_s < 10
    assert result.stdout == "before\n"


def test_signal_handlers_do_not_delay_the_end(run: Run) -> None:
    code = "import signal\nfor s in (15, 2, 14): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    assert isinstance(run(code, timeout_s=0.3).error, errors.TimeLimitExceeded)


def test_cpu_time_has_a_limit_of_its_own(run: Run) -> None:
    result = run("while True: pass", timeout_s=8.0, cpu_s=1.0)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.error.where == "cpu_s"


@pytest.mark.parametrize(
    "code",
    [
        "blocks = []\nwhile True: blocks.append(bytearray(8 << 20))",
        "import numpy as np\nnp.ones(1 << 30)",
        "data = b'x' * (1 << 20)\nwith open('/tmp/f', 'wb') as f:\n    for _ in range(2000): f.write(data)",
    ],
    ids=["heap", "numpy", "scratch"],
)
def test_memory_is_bounded_wherever_it_is_taken(run: Run, code: str) -> None:
    error = run(code, memory_bytes=96 << 20, disk_bytes=1 << 30).error
    assert isinstance(error, errors.MemoryLimitExceeded | errors.GuestException | errors.GuestCrashed)


@pytest.mark.parametrize("mib", [64, 256, 512, 100])
def test_the_memory_granted_may_be_more_or_less_than_the_warm_instances(run: Run, mib: int) -> None:
    take = f"len(bytearray({mib} << 19))"  # half of it
    assert run(take, memory_bytes=mib << 20).unwrap() == mib << 19


def test_more_output_than_allowed_is_cut_and_said(run: Run) -> None:
    result = run("while True: print('y' * 1000)", output_bytes=10_000)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert len(result.stdout) == 10_000


def test_a_guest_cannot_forge_an_error_of_ours(run: Run) -> None:
    forged = "{'op': 'error', 'type': 'WorkerCrashed', 'what': 'retry me'}"
    send = "os.write(3, struct.pack('<I', len(b)) + b)"
    code = f"import msgpack, os, struct\nb = msgpack.packb({forged})\n{send}\nos._exit(0)"
    assert isinstance(run(code).error, errors.GuestCrashed)


def test_noise_on_the_result_channel_harms_only_its_sender(run: Run) -> None:
    assert run("import os\nos.write(3, b'\\xff' * 64)\nos._exit(0)").error is not None
    assert run("1 + 1").value == 2


def test_nothing_stays_behind_for_the_next_task(run: Run) -> None:
    leave = (
        "import builtins, sys, os\nbuiltins.left = sys.left = 1\nos.environ['left'] = '1'\nopen('left', 'w').close()"
    )
    look = (
        "import builtins, sys, os\n"
        "[hasattr(builtins, 'left'), hasattr(sys, 'left'), 'left' in os.environ, 'left' in os.listdir()]"
    )
    for _ in range(5):
        assert run(leave).ok
        assert run(look).value == [False, False, False, False]


def test_each_task_has_randomness_of_its_own(run: Run) -> None:
    code = "import random, numpy as np\n(random.random(), float(np.random.random()))"
    seen = [tuple(run(code).value) for _ in range(4)]
    assert len({first for first, _ in seen}) == 4
    assert len({second for _, second in seen}) == 4


def test_the_result_says_what_was_enforced_and_what_was_used(run: Run) -> None:
    result = run("sum(i * i for i in range(200_000))")
    has_namespaces = find_standing() is not Standing.PLAIN
    assert result.isolation.engine == ("namespaces+seccomp" if has_namespaces else "seccomp")
    assert "seccomp allow-list" in result.isolation.layers
    assert result.isolation.no_spawn
    assert result.isolation.network == "none"
    assert result.usage.cpu_s is not None
    assert 0.001 < result.usage.cpu_s < 5
    assert result.usage.peak_memory_bytes is not None


def test_granted_environment_variables_are_all_it_sees(run: Run) -> None:
    seen = run("import os\ndict(os.environ)", env={"GREETING": "hi"}).unwrap()
    assert seen["GREETING"] == "hi"
    assert set(seen) <= {"GREETING", "PATH", "HOME", "LANG", "TZ", "MPLBACKEND", "MPLCONFIGDIR", "LC_CTYPE"} | {
        name for name in seen if name.endswith("_NUM_THREADS") or name == "KMP_INIT_AT_FORK"
    } | {"KMP_DUPLICATE_LIB_OK", "MALLOC_ARENA_MAX"}
