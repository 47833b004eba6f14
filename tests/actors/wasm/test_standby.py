"""What waits in a lane for its next request: one instance, fresh, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import Engine
from runvisor.actors.wasm.fastpath import Frame, Stopped, Store
from runvisor.actors.wasm.modules import CompiledModule, compile_module
from runvisor.actors.wasm.profiles import MAX_MEMORY_BYTES, TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.standby import Standby, Standing
from runvisor.actors.wasm.wasi import Wasi

COUNTER = """(module (memory 1) (global $n (mut i32) (i32.const 0))
  (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Has room for one instance: a second is refused as long as the first is not deleted."""
    return Engine(1, Wasi(Deadlines(lambda: None)), "plain")


@pytest.fixture(scope="module")
def module(engine: Engine) -> CompiledModule:
    return compile_module(engine, COUNTER.encode(), is_text=True)


@pytest.fixture
def make(engine: Engine, module: CompiledModule) -> Callable[[], Standing | None]:
    def standing() -> Standing | None:
        store = engine.store(Frame(), 1)
        assert isinstance(store, Store)
        store.limit(MAX_MEMORY_BYTES, TABLE_ELEMENTS, TABLES)
        try:
            store.instantiate(module.pre)
        except Stopped:
            store.close()
            return None
        return Standing(store, None)

    return standing


def test_what_was_ordered_is_made_when_nobody_waits_and_taken_once(make: Callable[[], Standing | None]) -> None:
    standby = Standby()
    standby.order("image", make)
    assert standby.take("image") is None
    standby.fill()
    standing = standby.take("image")
    assert standing is not None
    assert standing.store.call(b"next", b"", 1, 16)[0] == 1
    standing.store.close()
    standby.fill()  # one order, one instance
    assert standby.take("image") is None


def test_an_instance_of_one_image_is_not_given_to_another(make: Callable[[], Standing | None]) -> None:
    standby = Standby()
    standby.order("image", make)
    standby.fill()
    assert standby.take("other") is None
    standby.close()


def test_an_order_for_another_image_makes_room_first(make: Callable[[], Standing | None]) -> None:
    standby = Standby()
    standby.order("image", make)
    standby.fill()
    assert make() is None  # it takes the only place
    standby.order("other", make)
    standby.fill()
    assert standby.take("image") is None
    standing = standby.take("other")
    assert standing is not None
    standing.store.close()


def test_what_waits_is_deleted_with_the_lane(make: Callable[[], Standing | None]) -> None:
    standby = Standby()
    standby.order("image", make)
    standby.fill()
    standby.close()
    standing = make()
    assert standing is not None
    standing.store.close()


def test_what_cannot_be_made_is_not_there(make: Callable[[], Standing | None]) -> None:
    held = make()
    assert held is not None
    standby = Standby()
    standby.order("image", make)
    standby.fill()
    assert standby.take("image") is None
    held.store.close()
