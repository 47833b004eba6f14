"""What a grant's network looks like from inside."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.jail.egress.plan import MAX_LISTENERS, NetworkPlan
from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.hosts import AllowedHosts

_names = st.sampled_from(["a.test", "b.test", "localhost", "127.1.0.1", "127.0.0.1", "8.8.8.8", "10.1.2.3"])
_patterns = st.one_of(
    _names, st.builds("{}:{}".format, _names, st.sampled_from([80, 3128, 3129])), st.sampled_from(["**", "*.a.test"])
)


@given(st.lists(_patterns, max_size=8))
def test_every_route_is_granted_and_has_an_address_of_its_own(patterns: list[str]) -> None:
    plan = NetworkPlan.of(tuple(patterns))
    allowed = AllowedHosts.parse(patterns)
    assert all(allowed.allows(route.host, route.port) for route in plan.routes)
    places = [(route.address, route.port) for route in plan.routes]
    assert len(set(places)) == len(places)
    assert ("127.0.0.1", plan.proxy_port) not in places
    assert plan.ports[0] == plan.proxy_port
    assert set(plan.ports) == {plan.proxy_port} | {port for _, port in places}
    named: dict[str, set[str]] = {}
    for route in plan.routes:
        named.setdefault(route.address, set()).add(route.host)
    assert all(len(hosts - {"localhost"}) <= 1 for hosts in named.values())


@given(st.lists(_patterns, max_size=8))
def test_a_plan_survives_the_wire(patterns: list[str]) -> None:
    plan = NetworkPlan.of(tuple(patterns))
    assert NetworkPlan.from_message(plan.to_message()) == plan


def test_names_resolve_to_loopback_addresses_and_wildcards_to_none() -> None:
    plan = NetworkPlan.of(("a.test", "*.b.test", "**", "8.8.8.8:53"))
    assert plan.files["/etc/hosts"] == "127.0.0.1 localhost\n127.1.0.1 a.test\n"
    assert plan.files["/etc/nsswitch.conf"] == "hosts: files\n"
    assert "nameserver" not in plan.files["/etc/resolv.conf"]
    assert plan.own_addresses == ("8.8.8.8",)


def test_a_name_gets_no_address_that_is_granted_itself() -> None:
    plan = NetworkPlan.of(("a.test:80", "127.1.0.1:80"))
    assert {route.host: route.address for route in plan.routes} == {"a.test": "127.1.0.2", "127.1.0.1": "127.1.0.1"}


def test_the_proxy_makes_room_for_a_granted_port() -> None:
    assert NetworkPlan.of(("127.0.0.1:3128",)).proxy_port == 3129


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_programs_are_told_of_the_proxy(variable: str) -> None:
    plan = NetworkPlan.of(("a.test",))
    assert plan.environment[variable] == f"http://127.0.0.1:{plan.proxy_port}"
    assert plan.environment["no_proxy"] == plan.environment["NO_PROXY"] == ""


@pytest.mark.parametrize(
    "patterns",
    [
        [f"a.test:{port}" for port in range(1, MAX_LISTENERS + 1)],
        [f"a{number}.test" for number in range(2000)],
        ["0.0.0.0:80"],
        ["224.0.0.1:80"],
        ["255.255.255.255:80"],
        ["a.test:0"],
    ],
)
def test_a_plan_that_cannot_be_is_refused(patterns: list[str]) -> None:
    with pytest.raises(InvalidPermissions):
        NetworkPlan.of(tuple(patterns))


def test_all_addresses_inside_are_loopback_or_granted() -> None:
    plan = NetworkPlan.of(tuple(f"a{number}.test" for number in range(1000)))
    addresses = {route.address for route in plan.routes}
    assert len(addresses) == 1000
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses)
