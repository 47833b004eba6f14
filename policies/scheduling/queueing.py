"""How long a task would wait for an instance of a pool."""

from __future__ import annotations

import math

from runvisor.policies.scheduling.base import Load
from runvisor.policies.scheduling.clocks import passed_s
from runvisor.policies.scheduling.wire import check


class Pace:
    """How fast a pool serves, and how long its tasks waited of late."""

    __slots__ = ("at", "service_s", "square", "wait_s")

    def __init__(self, service_s: float = 0.0, square: float = 0.0, wait_s: float = 0.0, at: float = 0.0) -> None:
        self.service_s = service_s
        """Running mean of service time."""
        self.square = square
        """Running mean of its square."""
        self.wait_s = wait_s
        """Running mean of the waits."""
        self.at = at
        """When the last of them ended, in Unix seconds."""

    def learn(self, service_s: float, wait_s: float, at: float) -> None:
        """Take one outcome."""
        if not self.at:
            self.service_s, self.square, self.wait_s = service_s, service_s * service_s, wait_s
        else:
            self.service_s += 0.05 * (service_s - self.service_s)
            self.square += 0.05 * (service_s * service_s - self.square)
            self.wait_s += 0.1 * (wait_s - self.wait_s)
        if passed_s(self.at, at):
            self.at = at

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.service_s, self.square, self.wait_s, self.at]

    @classmethod
    def from_wire(cls, service_s: float, square: float, wait_s: float, at: float) -> Pace:
        """Rebuild a pace.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        check(holds=0 <= service_s <= 1e9 and 0 <= square <= 1e18 and 0 <= wait_s <= 1e9, what="a pace")
        return cls(service_s, square, wait_s, at)


def expected_wait(
    load: Load,
    service_s: float,
    square: float,
    usual_s: float,
    now: float,
    fade_s: float,
    more: int = 0,
    more_s: float = 0.0,
) -> tuple[float, float]:
    """Return the expected wait in a pool and its deviation, in seconds.

    With c instances and q callers, of whom c run, a new one waits for q - c + 1
    services shared by c instances. What was heard some time ago fades towards
    the wait that is usual there.

    Args:
        load: What the pool said.
        service_s: Mean service time there.
        square: Mean of its square.
        usual_s: The recent mean of waits there.
        now: Unix time in seconds.
        fade_s: The time in which a word fades to 1/e; a long queue fades as slowly as it drains.
        more: Tasks that the pool has not counted yet.
        more_s: Seconds of work that these are.

    Example:
        >>> from runvisor.actors.runtime import Load
        >>> expected_wait(Load(idle=0, busy=2, waiting=3), 0.1, 0.01, 0.0, 0.0, fade_s=1.0)[0]
        0.2
    """
    waiting = load.waiting + more
    over = waiting - load.idle + 1
    wait_s = deviation = 0.0
    if over > 0:
        busy = load.busy
        instances = load.idle + busy or 1
        callers = busy + waiting
        backlog_s = load.backlog_s
        if more:
            backlog_s = (backlog_s or (callers - more) * service_s) + more_s
        each_s = backlog_s / callers if callers else 0.0
        wait_s = over / instances * (each_s if each_s > service_s else service_s)
        deviation = math.sqrt(over * square) / instances
    if load.at and now > load.at:
        heard = math.exp((load.at - now) / (fade_s + wait_s))
        wait_s = heard * wait_s + (1.0 - heard) * usual_s
        deviation *= heard
    return wait_s, deviation
