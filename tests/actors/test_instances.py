"""The instance pool by itself: warm, single-use, bounded, honest when it is full."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.instances import InstancePool
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import Cancelled, PoolExhausted, QueueFull, SpawnFailed


class Workshop:
    """Makes numbered instances and remembers which were destroyed."""

    def __init__(self, size: PoolSize) -> None:
        self._numbers = itertools.count()
        self.made: list[int] = []
        self.destroyed: list[int] = []
        self.changed = threading.Condition()
        self.pool: InstancePool[int] = InstancePool(self._make, self._destroy, size)

    def _make(self) -> int:
        with self.changed:
            self.made.append(next(self._numbers))
            self.changed.notify_all()
            return self.made[-1]

    def _destroy(self, instance: int) -> None:
        with self.changed:
            self.destroyed.append(instance)
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 5)


@contextmanager
def workshop(minimum: int, maximum: int, **options: float) -> Iterator[Workshop]:
    made = Workshop(PoolSize(minimum, maximum, **options))  # type: ignore[arg-type]
    made.pool.start()
    try:
        yield made
    finally:
        made.pool.close()
    assert sorted(made.made) == sorted(made.destroyed), "every instance is destroyed exactly once"


def test_it_keeps_its_minimum_warm() -> None:
    with workshop(3, 5) as w:
        w.wait_for(lambda: len(w.made) == 3)


def test_no_instance_is_lent_twice() -> None:
    with workshop(2, 4) as w:
        lent = []
        for _ in range(20):
            with w.pool.lend() as instance:
                lent.append(instance)
        assert len(set(lent)) == 20


def test_an_instance_is_destroyed_also_when_its_task_fails() -> None:
    with workshop(1, 2) as w:
        with pytest.raises(RuntimeError), w.pool.lend() as instance:
            raise RuntimeError
        w.wait_for(lambda: instance in w.destroyed)


def test_a_full_pool_says_so_after_the_wait_and_serves_the_next_caller() -> None:
    with workshop(1, 1, wait_s=0.05) as w:
        with w.pool.lend(), pytest.raises(PoolExhausted) as caught, w.pool.lend():
            pytest.fail("a second instance was lent")
        assert caught.value.details["retry_after_s"] > 0
        with w.pool.lend(wait_s=5.0):
            pass


def test_more_callers_than_it_admits_are_turned_away_at_once() -> None:
    with workshop(1, 1, max_waiting=0) as w, w.pool.lend(), pytest.raises(QueueFull), w.pool.lend():
        pytest.fail("a second instance was lent")


def test_never_more_than_the_maximum_are_alive() -> None:
    with workshop(4, 4) as w:
        threads = [threading.Thread(target=use, args=(w,)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(w.made) >= 32


def use(w: Workshop) -> None:
    with w.pool.lend():
        assert len(w.made) - len(w.destroyed) <= 4


def test_a_first_instance_that_cannot_be_made_is_an_error_at_start() -> None:
    def fail() -> int:
        raise SpawnFailed("no kernel")

    pool: InstancePool[int] = InstancePool(fail, lambda instance: None, PoolSize(1, 1))
    with pytest.raises(SpawnFailed):
        pool.start()


def test_a_pool_that_can_make_no_more_says_why_instead_of_stalling() -> None:
    made = iter([1])

    def make() -> int:
        try:
            return next(made)
        except StopIteration:
            raise SpawnFailed("the zygote is gone") from None

    pool: InstancePool[int] = InstancePool(make, lambda instance: None, PoolSize(1, 2))
    pool.start()
    with pool.lend():
        pass
    with pytest.raises(SpawnFailed, match="the zygote is gone"), pool.lend():
        pytest.fail("lent from nothing")
    pool.close()


def test_a_caller_who_is_called_off_waits_no_longer_and_takes_no_instance() -> None:
    with workshop(1, 1, wait_s=600.0) as w:
        for make in (None, w._make):
            ended = threading.Event()
            with Cancellation() as cancellation, w.pool.lend(wait_s=5):
                began = threading.Thread(target=wait_in_vain, args=(w, cancellation, make, ended))
                began.start()
                until(lambda: w.pool.load().waiting == 1)
                cancellation.cancel()
                assert ended.wait(5)
                began.join()
                assert w.pool.load().waiting == 0
        with w.pool.lend(wait_s=5):
            assert w.pool.load().busy == 1


def wait_in_vain(
    w: Workshop, cancellation: Cancellation, make: Callable[[], int] | None, ended: threading.Event
) -> None:
    with pytest.raises(Cancelled), w.pool.lend(make=make, cancellation=cancellation):
        pytest.fail("an instance was lent to nobody")
    ended.set()


def test_an_early_word_keeps_a_caller_from_a_warm_instance() -> None:
    with workshop(1, 1) as w, Cancellation() as cancellation:
        w.wait_for(lambda: len(w.made) == 1)
        cancellation.cancel()
        with pytest.raises(Cancelled), w.pool.lend(cancellation=cancellation):
            pytest.fail("an instance was lent to nobody")
        assert w.pool.load().busy == 0


def test_calling_one_caller_off_does_not_leave_another_waiting() -> None:
    with workshop(1, 1, wait_s=600.0) as w, ExitStack() as stack:
        lease = ExitStack()
        lease.enter_context(w.pool.lend(wait_s=5))
        words = [stack.enter_context(Cancellation()) for _ in range(8)]
        served = threading.Event()
        callers = [threading.Thread(target=wait_in_vain, args=(w, word, None, threading.Event())) for word in words]
        callers.append(threading.Thread(target=lambda: (use(w), served.set())))
        for caller in callers:
            caller.start()
        until(lambda: w.pool.load().waiting == 9)
        for word in words:
            word.cancel()
        lease.close()
        assert served.wait(5)
        for caller in callers:
            caller.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def test_load_counts_idle_and_busy() -> None:
    with workshop(2, 4) as w:
        w.wait_for(lambda: len(w.made) == 2)
        with w.pool.lend():
            assert w.pool.load().busy == 1


def test_a_burst_makes_it_keep_more_warm() -> None:
    with workshop(1, 8) as w, ExitStack() as leases:
        for _ in range(5):
            leases.enter_context(w.pool.lend())
        leases.close()
        w.wait_for(lambda: len(w.made) - len(w.destroyed) >= 5)


def test_an_instance_made_for_one_task_counts_and_a_warm_one_gives_way() -> None:
    with workshop(2, 2) as w:
        w.wait_for(lambda: len(w.made) == 2)
        with w.pool.lend(make=w._make) as own:
            w.wait_for(lambda: len(w.destroyed) == 1)
            assert own == 2
            assert w.pool.load().busy >= 1
        w.wait_for(lambda: 2 in w.destroyed)


def test_an_instance_that_cannot_be_made_for_a_task_holds_no_place() -> None:
    def fail() -> int:
        raise SpawnFailed("no")

    with workshop(1, 1) as w:
        w.wait_for(lambda: len(w.made) == 1)
        with pytest.raises(SpawnFailed), w.pool.lend(make=fail):
            pass
        with w.pool.lend(wait_s=5):
            pass
