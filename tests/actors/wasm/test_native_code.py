"""Modules are compiled where nothing else happens, and engines only map what came of it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wasmtime

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.wasm.agreement import IN_ENGINE_BYTES
from runvisor.actors.wasm.executions import Module, compiled
from runvisor.actors.wasm.image import Image
from runvisor.actors.wasm.lanes import EngineGone
from runvisor.actors.wasm.native_code import GUEST_BOUNDS, CompileBounds, NativeCode
from runvisor.actors.wasm.principals import Principals
from runvisor.policies.errors import (
    ConfigError,
    GuestCrashed,
    GuestSyntaxError,
    MemoryLimitExceeded,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import MiB

SMALL = bytes(wasmtime.wat2wasm('(module (func (export "f") (result i32) (i32.const 7)))'))


def large(number: int, functions: int = 80) -> bytes:
    """Return a module that is too large to be compiled in the engine; its own for each number."""
    step = "(local.set 0 (i32.rotl (i32.mul (local.get 0) (i32.const 31)) (i32.const 5)))" * 40
    body = "".join(f'(func (export "f{i}") (param i32) (result i32) {step} (local.get 0))' for i in range(functions))
    code = bytes(wasmtime.wat2wasm(f'(module {body} (func (export "main") (result i32) (i32.const {number})))'))
    assert len(code) > IN_ENGINE_BYTES
    return code


class Kept:
    """Artifacts in a dictionary."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, bytes], bytes] = {}

    def get(self, kind: str, key: bytes) -> bytes | None:
        return self.entries.get((kind, key))

    def put(self, kind: str, key: bytes, data: bytes) -> None:
        self.entries[kind, key] = data


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def principals(kept: Kept) -> Iterator[Principals]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    principals = Principals(PoolSize(maximum=4), kept)
    principals.start()
    yield principals
    principals.close()


class Compilers:
    """Lends compilers, and remembers which."""

    def __init__(self, principals: Principals) -> None:
        self._principals = principals
        self.lent: list[Child] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[Child]:
        with self._principals._spares.lend() as child:
            self.lent.append(child)
            yield child


@pytest.fixture
def compilers(principals: Principals) -> Compilers:
    return Compilers(principals)


@pytest.fixture
def natives(compilers: Compilers) -> Iterator[NativeCode]:
    natives = NativeCode(compilers.lend)
    yield natives
    natives.close()


def maps_native_code(child: Child) -> bool:
    return "memfd:cwasm" in Path(f"/proc/{child.pid}/maps").read_text()


def test_a_large_module_is_compiled_outside_of_the_engine_that_runs_it(principals: Principals) -> None:
    with principals.engine("one") as link, link.lane(MiB) as lane:
        assert not maps_native_code(link.child)
        compiled(link, lane, Module.of(large(1), is_text=False), "plain")
        assert maps_native_code(link.child)


def test_a_small_module_is_compiled_in_its_engine(principals: Principals) -> None:
    with principals.engine("two") as link, link.lane(MiB) as lane:
        compiled(link, lane, Module.of(SMALL, is_text=False), "plain")
        assert not maps_native_code(link.child)


def test_two_principals_get_the_same_code_and_neither_can_change_it(principals: Principals, kept: Kept) -> None:
    code = large(3)
    before = len(kept.entries)
    for principal in ("one", "two"):
        with principals.engine(principal) as link, link.lane(MiB) as lane:
            compiled(link, lane, Module.of(code, is_text=False), "plain")
    assert len(kept.entries) == before + 1
    with principals._natives.of(Module.of(code, is_text=False).digest, code, "plain") as fd:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)


def test_each_profile_has_code_of_its_own(natives: NativeCode) -> None:
    code = large(4)
    with natives.of(b"four", code, "plain") as plain, natives.of(b"four", code, "metered") as metered:
        assert os.pread(plain, 1 << 26, 0) != os.pread(metered, 1 << 26, 0)


def test_what_a_process_compiled_another_finds_in_the_cache(compilers: Compilers) -> None:
    kept = Kept()
    for _ in range(2):
        natives = NativeCode(compilers.lend, kept)
        with natives.of(b"five", large(5), "plain") as fd:
            assert os.fstat(fd).st_size
        natives.close()
    assert len(compilers.lent) == 1


def test_a_compiler_serves_one_module_and_ends(compilers: Compilers, natives: NativeCode) -> None:
    for number in (6, 7):
        with natives.of(bytes([number]), large(number), "plain"):
            pass
    first, second = compilers.lent
    assert first.pid != second.pid
    assert first.exit() is not None
    assert second.exit() is not None


def test_those_who_want_the_same_module_at_once_have_it_compiled_once(
    compilers: Compilers, natives: NativeCode
) -> None:
    barrier = threading.Barrier(4)

    def want(_: int) -> int:
        barrier.wait()
        with natives.of(b"eight", large(8), "plain") as fd:
            return os.fstat(fd).st_size

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(want, range(4)))) == 1
    assert len(compilers.lent) == 1


def test_a_compile_without_end_is_killed(compilers: Compilers, natives: NativeCode) -> None:
    bounds = CompileBounds(GUEST_BOUNDS.code_bytes, 0.02, GUEST_BOUNDS.memory_bytes, GUEST_BOUNDS.native_bytes)
    with pytest.raises(TimeLimitExceeded), natives.of(b"nine", large(9, 1000), "plain", bounds=bounds):
        pass
    (compiler,) = compilers.lent
    assert compiler.exit() is not None


def test_a_compile_that_takes_too_much_memory_is_killed(natives: NativeCode) -> None:
    bounds = CompileBounds(GUEST_BOUNDS.code_bytes, 10.0, 4 * MiB, GUEST_BOUNDS.native_bytes)
    with pytest.raises(MemoryLimitExceeded), natives.of(b"ten", large(10, 1500), "plain", bounds=bounds):
        pass


@pytest.mark.parametrize("bounds", [CompileBounds(100, 10.0, 1 << 30, 1 << 20), CompileBounds(1 << 20, 10, 1 << 30, 9)])
def test_a_module_that_is_too_large_or_becomes_so_is_refused(natives: NativeCode, bounds: CompileBounds) -> None:
    with pytest.raises(MemoryLimitExceeded), natives.of(b"eleven", large(11), "plain", bounds=bounds):
        pass


def test_an_invalid_module_is_refused_as_in_the_engine(natives: NativeCode) -> None:
    code = large(12)[:-5]
    refused = pytest.raises(GuestSyntaxError, match="not a valid WebAssembly module")
    with refused as caught, natives.of(b"twelve", code, "plain"):
        pass
    assert caught.value.where.startswith("byte ")


def test_what_is_no_native_code_is_the_modules_fault_and_the_engine_lives(principals: Principals, kept: Kept) -> None:
    """As a module could have its compiler report."""
    code = Module.of(large(13), is_text=False)
    with principals._natives.of(code.digest, code.code, "plain"):
        key = list(kept.entries)[-1][1]
    natives = NativeCode(principals._spares.lend, kept)
    kept.entries["cwasm", key] = b"\x7fELF" + bytes(1000)
    try:
        with principals.engine("one") as link, link.lane(MiB) as lane:
            ours, link._natives = link._natives, natives
            try:
                with pytest.raises(GuestCrashed):
                    compiled(link, lane, code, "plain")
                link._natives = ours
                compiled(link, lane, code, "plain")
            finally:
                link._natives = ours
    finally:
        natives.close()


def test_an_image_is_loaded_once_for_each_engine(principals: Principals, kept: Kept) -> None:
    image = Image("image", large(14), "plain")
    before = len(kept.entries)
    for principal in ("one", "two", "one"):
        with principals.engine(principal) as link, link.lane(MiB) as lane:
            link.load_image(lane, image)
            link.load_image(lane, image)
    assert len(kept.entries) == before + 1


def test_a_component_is_an_image_too(principals: Principals, tmp_path: Path) -> None:
    file = tmp_path / "empty.wasm"
    file.write_bytes(wasmtime.wat2wasm("(component)"))
    with principals.engine("one") as link, link.lane(MiB) as lane:
        link.load_image(lane, Image("component", file, "component", is_component=True))


def test_an_image_that_cannot_be_had_is_the_operators_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such"):
        _ = Image("none", tmp_path / "no-such.wasm", "plain").digest
    with pytest.raises(ConfigError, match="not for the image"):
        Image("none", b"", "plain", is_component=True)


def test_a_dead_engine_is_noticed_when_code_is_sent(principals: Principals) -> None:
    with principals.engine("three") as link:
        lane = link.lane(MiB)
        link.death()
        with lane, pytest.raises(EngineGone):
            link.load(lane, b"fifteen", large(15), "plain", is_text=False)
