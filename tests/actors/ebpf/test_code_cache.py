"""Instructions outlive the process that compiled them, and are believed only if nobody touched them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from runvisor.actors.artifacts import ArtifactCache
from runvisor.actors.ebpf import code_cache
from runvisor.actors.ebpf.agreement import FUNCTION
from runvisor.actors.ebpf.code_cache import CodeCache
from runvisor.actors.ebpf.compiler import BODY_PATH, Compiler
from runvisor.actors.ebpf.harness import main_text
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import CapabilityDenied
from runvisor.policies.records import parse_program

CODES = {"first": b"\x95" + bytes(7), "second": bytes(16)}
MAIN = "int first(void *context) { return 2; }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def cache(folder: Path) -> CodeCache:
    return CodeCache(ArtifactCache(folder, max_bytes=1 << 20))


def test_what_was_put_comes_back_for_the_same_text_and_functions_only(cache: CodeCache, folder: Path) -> None:
    cache.put("main", "body", ("first", "second"), CODES)
    later = CodeCache(ArtifactCache(folder, max_bytes=1 << 20))
    assert later.get("main", "body", ("first", "second")) == CODES
    for main, body, functions in (
        ("main ", "body", ("first", "second")),
        ("main", "bodyfirst", ("second",)),
        ("main", "body", ("second", "first")),
        ("mainbody", "", ("first", "second")),
    ):
        assert later.get(main, body, functions) is None


def test_another_kernel_or_compiler_finds_nothing(cache: CodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put("main", "body", ("first",), CODES)
    monkeypatch.setattr(code_cache, "_identity", lambda: b"another")
    assert cache.get("main", "body", ("first",)) is None


def test_what_was_changed_on_disk_is_not_believed(cache: CodeCache, folder: Path) -> None:
    cache.put("main", "body", ("first",), CODES)
    (entry,) = (path for path in (folder / "ebpf").rglob("*") if path.is_file())
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    assert cache.get("main", "body", ("first",)) is None
    assert not entry.exists()


def test_without_a_place_nothing_is_kept() -> None:
    cache = CodeCache(None)
    cache.put("main", "body", ("first",), CODES)
    assert cache.get("main", "body", ("first",)) is None


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[[], Compiler]]:
    """Make compilers that share a folder, as processes one after the other do."""
    if not probe_ebpf().available:
        pytest.skip(probe_ebpf().detail)
    made: list[Compiler] = []

    def one() -> Compiler:
        made.append(Compiler(PoolSize(minimum=0, maximum=1), ArtifactCache(folder, max_bytes=1 << 20)))
        return made[-1]

    yield one
    for compiler in made:
        compiler.close()


@pytest.mark.kernel
@pytest.mark.root
def test_a_later_process_does_not_compile_again(make: Callable[[], Compiler]) -> None:
    compiled: list[bool] = []
    first = make()
    first.start()
    code = first.instructions(MAIN, "", 30.0, lambda: compiled.append(True), ("first",))
    later = make()  # never started: it has no child that could compile
    assert later.instructions(MAIN, "", 30.0, lambda: compiled.append(True), ("first",)) == code
    assert compiled == [True]


@pytest.mark.kernel
@pytest.mark.root
def test_what_is_kept_is_scanned_like_what_is_fresh(make: Callable[[], Compiler], folder: Path) -> None:
    program = parse_program("int on_record(struct record *r, struct state *s) { return 1; }", np.dtype("<u4"))
    calls_the_kernel = b"\x85\0\0\0\x05\0\0\0" + b"\x95" + bytes(7)
    main = main_text(program, "may_goto", BODY_PATH)
    kept = CodeCache(ArtifactCache(folder, max_bytes=1 << 20))
    kept.put(main, program.body, (FUNCTION,), {FUNCTION: calls_the_kernel})
    with pytest.raises(CapabilityDenied):
        make().compile(program, "may_goto", 4096, 30.0, lambda: None)
