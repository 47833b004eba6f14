"""The table of bad input: which case applies to which runtime, and the one error it gives there.

Every pair that applies is a test. Each also shows that the runtime's next task
still answers, and that it came to its end in time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from runvisor.actors import registry
from runvisor.actors.runtime import PoolSize, Runtime
from runvisor.policies import errors
from runvisor.policies.trust import Trust
from tests.actors.executing import execute

pytestmark = pytest.mark.root
RECORDS = {"records": np.zeros(8, [("n", "<u8")])}
COUNT = "struct state { u64 n; };\nint on_record(struct record *r, struct state *s) { s->n += 1; return 1; }\n"
MANY = {"records": np.zeros(4000, [("n", "<u8")]), "return": "outputs"}
WIDE = """struct output { u64 wide[64]; };
int on_record(struct record *r, struct state *s, struct output *o) { return 1; }
"""
KEEP = "int on_packet(struct packet *p, struct state *s) { return 1; }\n"
HOG_WAT = """
(module (memory (export "memory") 1)
  (func (export "main") (result i32)
    (loop $more
      (if (i32.eq (memory.grow (i32.const 256)) (i32.const -1)) (then (unreachable)))
      (br $more))
    (i32.const 0)))
"""
FLOOD_C = (
    '#include <stdio.h>\nint main(void) { for (;;) puts("yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"); }\n'
)
FOREVER_WAT = '(module (func (export "main") (loop $l (br $l))))'


class Place(NamedTuple):
    """Where a task runs."""

    runtime: str
    variant: str
    language: str
    inputs: Any = None
    trust: Trust = Trust.UNTRUSTED


PYTHON = Place("python", "native", "python")
V8 = Place("v8", "isolate", "javascript")
WAT = Place("wasm", "module", "wat")
C = Place("wasm", "module", "c")
WASM_RECORD = Place("wasm", "record", "c-record", RECORDS)
WASM_OUTPUTS = WASM_RECORD._replace(inputs=MANY)
EBPF = Place("ebpf", "record", "c-record", RECORDS, Trust.VERIFIED)
EBPF_OUTPUTS = EBPF._replace(inputs=MANY)
PACKETS = Place("ebpf", "packet", "c-packet", {"packets": [bytes(60)]}, Trust.VERIFIED)

TABLE: list[tuple[str, Place, str, tuple[type[errors.RunvisorError], ...]]] = [
    ("syntax error", PYTHON, "def f(:", (errors.GuestSyntaxError,)),
    ("syntax error", V8, "let x = ;", (errors.GuestSyntaxError,)),
    ("syntax error", WAT, "(module (func", (errors.GuestSyntaxError,)),
    ("syntax error", C, "int main(void) { return 0 }", (errors.GuestSyntaxError,)),
    ("syntax error", WASM_RECORD, COUNT.replace("return 1;", "return 1"), (errors.GuestSyntaxError,)),
    ("syntax error", EBPF, COUNT.replace("return 1;", "return 1"), (errors.GuestSyntaxError,)),
    ("syntax error", PACKETS, KEEP.replace("1;", "1"), (errors.GuestSyntaxError,)),
    ("infinite loop", PACKETS, KEEP.replace("{", "{ while (load_byte(p, 0) == 0);"), (errors.GuestSyntaxError,)),
    ("infinite loop", PYTHON, "while True: pass", (errors.TimeLimitExceeded,)),
    ("infinite loop", V8, "while (true) {}", (errors.TimeLimitExceeded,)),
    ("infinite loop", WAT, FOREVER_WAT, (errors.TimeLimitExceeded,)),
    ("infinite loop", C, "int main(void) { volatile int x = 1; while (x) {} return 0; }", (errors.TimeLimitExceeded,)),
    (
        "infinite loop",
        WASM_RECORD,
        COUNT.replace("s->n += 1;", "for (;;) s->n += r->n + 1;"),
        (errors.TimeLimitExceeded,),
    ),
    # The verifier refuses what it cannot show to end, before it runs.
    ("infinite loop", EBPF, COUNT.replace("s->n += 1;", "for (;;) s->n += r->n + 1;"), (errors.GuestSyntaxError,)),
    ("memory bomb", PYTHON, "x = []\nwhile True: x.append(bytearray(1 << 24))", (errors.MemoryLimitExceeded,)),
    ("memory bomb", V8, "const x = []; while (true) x.push(new Array(1e5).fill(1.5))", (errors.MemoryLimitExceeded,)),
    # A wasm guest sees the refusal itself, as -1; this one then traps.
    ("memory bomb", WAT, HOG_WAT, (errors.GuestException,)),
    ("output flood", PYTHON, "while True: print('y' * 1000)", (errors.OutputLimitExceeded,)),
    ("output flood", V8, "while (true) console.log('y'.repeat(1000))", (errors.OutputLimitExceeded,)),
    ("output flood", C, FLOOD_C, (errors.OutputLimitExceeded,)),
    ("output flood", WASM_OUTPUTS, WIDE, (errors.OutputLimitExceeded,)),
    ("output flood", EBPF_OUTPUTS, WIDE, (errors.OutputLimitExceeded,)),
    ("memory bomb", WASM_OUTPUTS, WIDE.replace("[64]", "[4000]"), (errors.MemoryLimitExceeded,)),
    ("memory bomb", EBPF_OUTPUTS, WIDE.replace("[64]", "[4000]"), (errors.MemoryLimitExceeded,)),
    ("unserialisable value", PYTHON, "object()", (errors.UnserializableValue,)),
    ("unserialisable value", V8, "Symbol('x')", (errors.UnserializableValue,)),
]
GOOD: dict[tuple[str, str], str] = {
    ("python", "python"): "1",
    ("v8", "javascript"): "1",
    ("wasm", "wat"): '(module (func (export "main") (result i32) (i32.const 1)))',
    ("wasm", "c"): "int main(void) { return 0; }",
    ("wasm", "c-record"): COUNT,
    ("ebpf", "c-record"): COUNT,
    ("ebpf", "c-packet"): KEEP,
}


@pytest.fixture(scope="module")
def runtimes() -> Iterator[dict[str, Runtime]]:
    started: dict[str, Runtime] = {}
    try:
        for name in ("python", "v8", "wasm", "ebpf"):
            if registry.probe(name).available:
                started[name] = registry.create(name, PoolSize(minimum=2, maximum=4))
                started[name].start()
        yield started
    finally:
        for runtime in started.values():
            runtime.close()


@pytest.mark.parametrize(
    ("place", "code", "kinds"),
    [pytest.param(*row[1:], id=f"{row[0]} in {row[1].language} on {row[1].runtime}") for row in TABLE],
)
def test_bad_input_gives_its_error_and_the_next_task_answers(
    runtimes: dict[str, Runtime], place: Place, code: str, kinds: tuple[type[errors.RunvisorError], ...]
) -> None:
    runtime = runtimes.get(place.runtime)
    if runtime is None:
        pytest.skip(registry.probe(place.runtime).detail)
    good = GOOD[place.runtime, place.language]
    where = (place.language, place.variant, place.inputs)
    fine = (place.language, place.variant, RECORDS if place.language == "c-record" else place.inputs)
    execute(runtime, good, *fine, trust=place.trust, timeout_s=30.0)  # whatever is made on first use, is made
    began = time.monotonic()
    result = execute(runtime, code, *where, trust=place.trust, timeout_s=2.0, memory_bytes=96 << 20)
    assert isinstance(result.error, kinds), result.error
    assert str(result.error)
    assert time.monotonic() - began < 2.0 + 10.0
    assert execute(runtime, good, *fine, trust=place.trust, timeout_s=10.0).error is None
