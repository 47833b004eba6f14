"""What host patterns let through, and what they do not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.hosts import AllowedHosts, HostPattern, canonical_host, is_address
from runvisor.policies.permissions import Network

_labels = st.sampled_from(["a", "b", "example", "com", "x-y", "_srv"])
_names = st.lists(_labels, min_size=2, max_size=4).map(".".join)
_ports = st.sampled_from([22, 80, 443, 8443])
_patterns = st.one_of(
    st.just("**"),
    _names,
    st.builds("{}:{}".format, _names, _ports),
    _names.map("*.{}".format),
    st.builds("*.{}:{}".format, _names, _ports),
    st.sampled_from(["10.0.0.1", "10.0.0.1:22", "localhost", "localhost:8443"]),
)
_hosts = st.one_of(_names, st.sampled_from(["10.0.0.1", "localhost", "8.8.8.8"]))


@pytest.mark.parametrize(
    ("pattern", "host", "port", "through"),
    [
        ("api.test", "api.test", 80, True),
        ("api.test", "api.test", 443, True),
        ("api.test", "api.test", 8080, False),
        ("api.test", "x.api.test", 443, False),
        ("api.test", "notapi.test", 443, False),
        ("api.test", "api.test.evil.test", 443, False),
        ("api.test:8080", "api.test", 8080, True),
        ("api.test:8080", "api.test", 443, False),
        ("API.Test", "api.test", 443, True),
        ("*.api.test", "x.api.test", 443, True),
        ("*.api.test", "y.x.api.test", 443, True),
        ("*.api.test", "api.test", 443, False),
        ("*.api.test", "xapi.test", 443, False),
        ("*.api.test:99", "x.api.test", 99, True),
        ("*.api.test:99", "x.api.test", 443, False),
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("127.0.0.1:80", "127.0.0.2", 80, False),
        ("**", "anything.at.all", 1, True),
        ("**", "2001:db8::1", 1, True),
    ],
)
def test_a_pattern_lets_through(pattern: str, host: str, port: int, through: bool) -> None:
    Network((pattern,))
    assert AllowedHosts.parse([pattern]).allows(host, port) is through


def test_no_pattern_lets_nothing_through() -> None:
    assert not AllowedHosts.parse([]).allows("a.test", 443)


@pytest.mark.parametrize(
    "pattern", ["a.test:0", "a.test:99999", "127.1", "0x7f.0x1", "2130706433", "*.1.2.3.4", "1.2.3"]
)
def test_a_pattern_that_can_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPermissions):
        AllowedHosts.parse([pattern])


def test_a_letter_that_only_looks_like_ascii_once_lowered_is_refused() -> None:
    with pytest.raises(InvalidPermissions):
        HostPattern.parse("\u212aey.test")  # KELVIN SIGN, whose lower case is the letter k


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "a.test..", "-a.test", "a-.test", "a b", "a\0b", "a\n", "a/b", "a@b", "a:80", "[::1]",
        "127.1", "0177.0.0.1", "0x7f000001", "2130706433", "127.0.0.1.5", "1.2.3.256", "a.0x", "fe80::1%eth0",
        "bücher.test", "ａ.test", "1٠.0.0.1", "a" * 64 + ".test", "a." * 127 + "test", "%31.test",
    ],
)  # fmt: skip
def test_text_that_is_no_host(text: str) -> None:
    assert canonical_host(text) is None


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("A.Test", "a.test"), ("a.test.", "a.test"), ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ("10.0.0.1", "10.0.0.1"), ("10.0.0.1.", "10.0.0.1"), ("::FFFF:1.2.3.4", "::ffff:102:304"), ("0::1", "::1"),
    ],
)  # fmt: skip
def test_one_spelling_per_host(text: str, host: str) -> None:
    found = canonical_host(text)
    assert found == host or (found is not None and ipaddress.ip_address(found) == ipaddress.ip_address(host))


@given(st.text(max_size=40))
def test_a_canonical_host_is_its_own_canonical_form(text: str) -> None:
    host = canonical_host(text)
    assert host is None or (canonical_host(host) == host and host.isascii())


@given(_patterns, _patterns, _hosts, _ports)
def test_covering_never_widens(outer: str, inner: str, host: str, port: int) -> None:
    wide, narrow = HostPattern.parse(outer), HostPattern.parse(inner)
    if wide.covers(narrow) and narrow.matches(host, port):
        assert wide.matches(host, port)


@given(_patterns)
def test_a_pattern_covers_itself(pattern: str) -> None:
    assert HostPattern.parse(pattern).covers(HostPattern.parse(pattern))


@given(st.lists(_patterns, max_size=4), _hosts, _ports)
def test_an_address_is_named_only_by_an_exact_pattern(patterns: list[str], host: str, port: int) -> None:
    allowed = AllowedHosts.parse(patterns)
    if allowed.names_address(host, port):
        assert is_address(host) or host == "localhost"
        assert host in patterns or f"{host}:{port}" in patterns


def test_a_wildcard_does_not_name_an_address() -> None:
    assert not AllowedHosts.parse(["**", "*.a.test"]).names_address("127.0.0.1", 80)
