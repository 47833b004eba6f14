"""Permissions: parsing them, comparing them, narrowing them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.permissions import ANYTHING, Filesystem, GiB, KiB, MiB, Network, Permissions

LIMITS = (
    "memory_bytes",
    "timeout_s",
    "cpu_s",
    "instructions",
    "stack_bytes",
    "output_bytes",
    "disk_bytes",
    "processes",
)

paths = st.lists(
    st.sampled_from(
        ["./data/**", "./data/*", "data/a.csv", "/srv/**", "/srv/x/**", "/srv/x/y.txt", "*.csv", "**", "/**", "a b/**"]
    ),
    max_size=4,
).map(tuple)
hosts = st.lists(
    st.sampled_from(["a.example.com", "*.example.com", "example.com:443", "*.a.example.com", "b.org", ANYTHING]),
    max_size=4,
).map(tuple)
tools = st.lists(st.sampled_from(["search", "fetch", "a/**", "*.search", ANYTHING]), max_size=3).map(tuple)
sizes = st.integers(1, 2**40)
seconds = st.floats(0.001, 1e6)
permissions = st.builds(
    Permissions,
    filesystem=st.builds(Filesystem, paths, paths),
    network=st.builds(Network, hosts),
    memory_bytes=sizes,
    timeout_s=seconds,
    cpu_s=st.none() | seconds,
    instructions=st.none() | sizes,
    stack_bytes=st.none() | sizes,
    output_bytes=sizes,
    disk_bytes=sizes,
    processes=st.integers(0, 100),
    env=st.dictionaries(st.sampled_from(["A", "B"]), st.text(st.characters(exclude_characters="\0"), max_size=3)),
    tools=tools,
)


@given(permissions, permissions)
def test_narrowing_leaves_no_excess(asked: Permissions, ceiling: Permissions) -> None:
    assert asked.narrowed_to(ceiling).excess_over(ceiling) == ()


@given(permissions, permissions)
def test_narrowing_never_widens(asked: Permissions, ceiling: Permissions) -> None:
    granted = asked.narrowed_to(ceiling)
    assert granted.excess_over(asked) == ()
    for name in LIMITS:
        mine, limit = getattr(granted, name), getattr(ceiling, name)
        assert limit is None or mine is not None, f"{name} lost its ceiling"
        assert limit is None or mine <= limit


@given(permissions, permissions)
def test_narrowing_twice_is_narrowing_once(asked: Permissions, ceiling: Permissions) -> None:
    once = asked.narrowed_to(ceiling)
    assert once.narrowed_to(ceiling) == once


@given(permissions)
def test_a_ceiling_allows_itself_and_only_what_it_names(asked: Permissions) -> None:
    assert asked.excess_over(asked) == ()
    assert asked.narrowed_to(asked) == asked
    nothing = asked.narrowed_to(Permissions())
    assert nothing.filesystem == Filesystem()
    assert nothing.network == Network()
    assert nothing.tools == ()


def test_a_limit_that_was_not_asked_for_becomes_the_ceilings() -> None:
    granted = Permissions().narrowed_to(Permissions(cpu_s=1.0, instructions=1000))
    assert (granted.cpu_s, granted.instructions, granted.stack_bytes) == (1.0, 1000, None)


@pytest.mark.parametrize(
    ("asked", "ceiling", "covered"),
    [
        ("/srv/data/x.csv", "/srv/data/**", True),
        ("/srv/data/**", "/srv/**", True),
        ("./data/*", "./data/*", True),
        ("/etc/passwd", "/**", True),
        ("/etc/passwd", "**", True),
        ("/srv/database/x", "/srv/data/**", False),
        ("/srv/data", "/srv/data/**", False),
        ("**", "/srv/**", False),
        ("/**", "/srv/**", False),
        ("/etc/secret.csv", "*.csv", False),
        ("/etc/a.b.csv", "*.b.csv", False),
        ("data/x", "./data/**", False),
        ("/srv/data/x", "/srv/data/*", False),
    ],
)
def test_which_paths_a_ceiling_covers(asked: str, ceiling: str, covered: bool) -> None:
    excess = Permissions(filesystem=Filesystem((asked,))).excess_over(Permissions(filesystem=Filesystem((ceiling,))))
    assert (excess == ()) is covered


@pytest.mark.parametrize(
    ("asked", "ceiling", "covered"),
    [
        ("a.example.com", "*.example.com", True),
        ("a.example.com:8443", "*.example.com", False),  # without a port: 80 and 443
        ("a.b.example.com", "*.example.com", True),
        ("b.org", "**", True),
        ("example.com", "example.com", True),
        ("example.com", "*.example.com", False),
        ("badexample.com", "*.example.com", False),
        ("a.example.com.evil.org", "*.example.com", False),
        ("example.com:443", "example.com", True),
        ("example.com:22", "example.com", False),
        ("example.com", "example.com:443", False),
        ("a.example.com", "*.example.com:443", False),
        ("**", "*.example.com", False),
        ("*.example.com", "a.example.com", False),
    ],
)
def test_which_hosts_a_ceiling_covers(asked: str, ceiling: str, covered: bool) -> None:
    excess = Permissions(network=Network((asked,))).excess_over(Permissions(network=Network((ceiling,))))
    assert (excess == ()) is covered


def test_a_ceiling_of_tools_is_by_name() -> None:
    ceiling = Permissions(tools=("search", "a/**", "*.x"))
    assert Permissions(tools=("search",)).excess_over(ceiling) == ()
    assert Permissions(tools=("a/b", "y.x")).excess_over(ceiling) == ("tools: 'a/b', 'y.x' not allowed",)


def test_what_may_be_written_may_be_read() -> None:
    ceiling = Permissions(filesystem=Filesystem(write=("/out/**",)))
    assert Permissions(filesystem=Filesystem(read=("/out/a",))).excess_over(ceiling) == ()
    assert Permissions(filesystem=Filesystem(write=("/out/a",))).excess_over(
        Permissions(filesystem=Filesystem(read=("/out/**",)))
    ) == ("filesystem.write: '/out/a' not allowed",)


@given(permissions)
def test_plain_data_reads_back_equal(asked: Permissions) -> None:
    assert Permissions.from_dict(asked.to_dict()) == asked


def test_the_papers_spelling_is_read() -> None:
    asked = Permissions.from_dict(
        {
            "memory": {"limit": "128MB"},
            "execution": {"timeout": 5000},
            "network": {"allowedHosts": ["api.example.com"]},
            "filesystem": {"read": ["./data/*"], "write": ["./out/**"]},
        }
    )
    assert asked == Permissions(
        memory_bytes=128 * MiB,
        timeout_s=5.0,
        network=Network(("api.example.com",)),
        filesystem=Filesystem(("./data/*",), ("./out/**",)),
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [(128, 128), ("128", 128), ("1k", KiB), ("1.5 GiB", 3 * GiB // 2), ("64 mb", 64 * MiB), ("1T", 1024 * GiB)],
)
def test_sizes(text: Any, size: int) -> None:
    assert Permissions.from_dict({"memory_bytes": text}).memory_bytes == size


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"memory": "128MB"}, "memory"),
        ({"memory": {"limit": "lots"}}, "memory.limit"),
        ({"memory_bytes": "9" * 400}, "memory_bytes"),
        ({"memory_bytes": None}, "memory_bytes"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes": True}, "memory_bytes"),
        ({"memory_bytes": 1.5}, "memory_bytes"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"timeout_s": "5"}, "timeout_s"),
        ({"execution": {"timeout": 10**400}}, "execution.timeout"),
        ({"execution": {"timeout": True}}, "execution.timeout"),
        ({"processes": -1}, "processes"),
        ({"network": {"allowed_hosts": "example.com"}}, "network.allowed_hosts"),
        ({"network": {"allowed_hosts": ["*.com"]}}, "network.allowed_hosts[0]"),
        ({"network": {"allowed_hosts": ["http://x.org"]}}, "network.allowed_hosts[0]"),
        ({"network": {"hosts": []}}, "network"),
        ({"network": ["x.org"]}, "network"),
        ({"filesystem": {"read": ["../x"]}}, "filesystem.read[0]"),
        ({"filesystem": {"read": ["a/../../x"]}}, "filesystem.read[0]"),
        ({"filesystem": {"read": ["a\0b"]}}, "filesystem.read[0]"),
        ({"filesystem": {"write": [""]}}, "filesystem.write[0]"),
        ({"filesystem": {"read": [1]}}, "filesystem.read[0]"),
        ({"env": ["A"]}, "env"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"env": {"A": "x\0"}}, "env"),
        ({"tools": "search"}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": None}, "tools"),
        ({"sudo": True}, "sudo"),
        ({1: 2}, "permissions"),
        pytest.param({"processes": 10**6000}, "processes", id="huge integer"),
        ([], "permissions"),
    ],
)
def test_what_does_not_parse_is_refused_with_its_place(data: Any, where: str) -> None:
    with pytest.raises(InvalidPermissions) as caught:
        Permissions.from_dict(data)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (Filesystem, {"read": "./data"}),
        (Network, {"allowed_hosts": "example.com"}),
        (Permissions, {"tools": "search"}),
        (Permissions, {"filesystem": {"read": []}}),
        (Permissions, {"env": None}),
    ],
)
def test_text_where_a_list_belongs_is_refused_and_not_taken_letter_by_letter(cls: Any, wrong: Any) -> None:
    with pytest.raises(InvalidPermissions):
        cls(**wrong)


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        *LIMITS,
        "env",
        "tools",
        "network",
        "filesystem",
        "memory",
        "execution",
        "limit",
        "timeout",
        "read",
        "allowed_hosts",
    ]
)


@given(
    st.dictionaries(
        names | st.integers() | st.text(max_size=4), json_like | st.dictionaries(names, json_like), max_size=4
    )
)
@example({"filesystem": {"read": [{}]}})
@example({"memory_bytes": "1" * 30 + "T"})
def test_any_data_parses_or_is_refused(data: Any) -> None:
    try:
        asked = Permissions.from_dict(data)
    except InvalidPermissions:
        return
    assert Permissions.from_dict(asked.to_dict()) == asked


def test_permissions_cannot_be_changed_in_place() -> None:
    asked: Any = Permissions()
    with pytest.raises(FrozenInstanceError):
        asked.memory_bytes = 1


def test_the_caller_keeps_no_hand_on_the_environment() -> None:
    env = {"A": "1"}
    asked = Permissions(env=env)
    env["A"] = "2"
    assert asked.env == {"A": "1"}
