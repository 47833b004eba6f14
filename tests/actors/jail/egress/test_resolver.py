"""Where a granted host leads."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import Refused
from runvisor.actors.jail.egress.resolver import Destinations, PinnedHosts, SystemResolver
from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.hosts import AllowedHosts


class Answers:
    """A name server that answers differently each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def addresses(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        return self._answers.pop(0)


def _find(
    patterns: list[str], host: str, port: int, answers: Answers, table: dict[str, str] | None = None
) -> list[tuple[str, int]]:
    destinations = Destinations(AllowedHosts.parse(patterns), PinnedHosts.parse(table or {}), answers)
    return asyncio.run(destinations.find(host, port))


def test_a_name_is_resolved_once_and_leads_to_the_checked_address() -> None:
    answers = Answers(["8.8.8.8", "2606:4700::1111"], ["127.0.0.1"])
    assert _find(["a.test"], "a.test", 443, answers) == [("8.8.8.8", 443), ("2606:4700::1111", 443)]
    assert answers.asked == ["a.test"]
    with pytest.raises(Refused, match=r"a\.test leads astray: 127\.0\.0\.1 is not a global address"):
        _find(["a.test"], "a.test", 443, answers)  # rebound in the meantime


@pytest.mark.parametrize("answer", [["8.8.8.8", "10.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["nonsense"]])
def test_one_bad_address_spoils_the_answer(answer: list[str]) -> None:
    with pytest.raises(Refused):
        _find(["**"], "a.test", 443, Answers(answer))


def test_what_is_not_granted_is_not_even_looked_up() -> None:
    answers = Answers(["8.8.8.8"])
    with pytest.raises(Refused, match=r"evil\.test:443 is not in network\.allowed_hosts"):
        _find(["a.test"], "evil.test", 443, answers)
    assert answers.asked == []


def test_an_address_is_reached_if_it_is_named_or_global() -> None:
    assert _find(["10.0.0.1:22"], "10.0.0.1", 22, Answers()) == [("10.0.0.1", 22)]
    assert _find(["localhost:22"], "localhost", 22, Answers()) == [("127.0.0.1", 22), ("::1", 22)]
    assert _find(["**"], "8.8.8.8", 22, Answers()) == [("8.8.8.8", 22)]
    for host in ("10.0.0.1", "127.0.0.1", "::1", "169.254.169.254"):
        with pytest.raises(Refused, match="not a global address"):
            _find(["**", "localhost"], host, 22, Answers())
    with pytest.raises(Refused):  # a wildcard does not name localhost
        _find(["**"], "localhost", 22, Answers(["127.0.0.1"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_an_address_of_this_machine_is_no_destination_though_it_is_global() -> None:
    plan = NetworkPlan.of(("93.184.216.34:80",))  # the plan gives lo this address, in the thread's own network
    with ThreadPoolExecutor(1) as thread:
        thread.submit(kernel.unshare, kernel.CLONE_NEWNET).result()
        for listener in thread.submit(inside.prepare, plan).result():
            listener.close()
        for host in ("a.test", "93.184.216.34"):
            with pytest.raises(Refused, match=r"93\.184\.216\.34 is an address of this machine"):
                thread.submit(_find, ["**"], host, 80, Answers(["93.184.216.34"])).result()


def test_a_name_without_address_is_an_error_of_the_network() -> None:
    with pytest.raises(OSError, match=r"a\.test has no address"):
        _find(["a.test"], "a.test", 80, Answers([]))


def test_the_operators_table_pins_places_but_grants_nothing() -> None:
    table = {"db.test": "10.0.0.7", "a.test:443": "127.0.0.1:8443"}
    assert _find(["db.test:5432"], "db.test", 5432, Answers(), table) == [("10.0.0.7", 5432)]
    assert _find(["a.test"], "a.test", 443, Answers(), table) == [("127.0.0.1", 8443)]
    assert _find(["a.test"], "a.test", 80, Answers(["8.8.8.8"]), table) == [("8.8.8.8", 80)]
    with pytest.raises(Refused):
        _find(["a.test"], "db.test", 443, Answers(), table)


@pytest.mark.parametrize(
    "table", [{"a.test": "b.test"}, {"a.test:0": "1.1.1.1"}, {"a.test": "1.1.1.1:99999"}, {"a b": "1.1.1.1"}, {"a": ""}]
)
def test_a_malformed_table_is_refused(table: dict[str, str]) -> None:
    with pytest.raises(InvalidPermissions):
        PinnedHosts.parse(table)


def test_lookups_are_few_at_a_time_even_when_nobody_waits_for_them_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    go_on = threading.Event()

    def answer_late(host: str, *rest: object, **named: object) -> list[object]:
        asked.append(host)
        go_on.wait(10)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", answer_late)

    async def ask() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(12))
        resolver = SystemResolver()
        for waiting in ("first", "second"):
            lookups = [asyncio.create_task(resolver.addresses(f"{waiting}.test")) for _ in range(12)]
            await asyncio.wait(lookups, timeout=0.2)
            for lookup in lookups:
                lookup.cancel()
            await asyncio.gather(*lookups, return_exceptions=True)
        count = len(asked)
        go_on.set()
        with pytest.raises(OSError, match="no such name"):
            await resolver.addresses("third.test")
        return count

    assert asyncio.run(ask()) == 4
    assert set(asked) == {"first.test.", "third.test."}
