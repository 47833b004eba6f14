"""Attributes on a fence: what they say, and exact places for what they get wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidPlan
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.trust import Trust
from runvisor.supervisor.plan.attributes import ATTRIBUTES, parse_info, quote, read_attributes
from runvisor.supervisor.plan.references import Reference

NAMES = st.sampled_from(ATTRIBUTES)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=30)


def read(text: str, ceiling: Permissions | None = None) -> dict[str, object]:
    return read_attributes(parse_info(text, line=7, column=4).attributes, ceiling)


def test_the_example_of_the_documentation_reads_as_meant() -> None:
    fields = read(
        "python id=clean needs=load,fetch timeout=5 trust=verified memory=128MB for_each=steps.load.value retries=1"
    )
    permissions = fields.pop("permissions")
    assert fields == {
        "id": "clean",
        "needs": ("load", "fetch"),
        "trust": Trust.VERIFIED,
        "for_each": Reference("load"),
        "retries": 1,
    }
    assert permissions == Permissions(timeout_s=5.0, memory_bytes=128 * MiB)


@given(st.dictionaries(NAMES, TEXTS, max_size=6), st.sampled_from(["", "python", "c-record"]))
def test_what_is_quoted_reads_back_the_same(pairs: dict[str, str], language: str) -> None:
    text = " ".join([language, *(f"{name}={quote(value)}" for name, value in pairs.items())])
    info = parse_info(text, line=1, column=1)
    assert info.language == language
    assert {attribute.name: attribute.text for attribute in info.attributes} == pairs


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "timeout": st.integers(1, 500).map(lambda n: (f"{n}ms", "timeout_s", n * 0.001)),
            "memory": st.integers(1, 4000).map(lambda n: (f"{n}MB", "memory_bytes", n * MiB)),
            "disk": st.integers(1, 2**40).map(lambda n: (str(n), "disk_bytes", n)),
            "cpu": st.integers(1, 100).map(lambda n: (f"{n}min", "cpu_s", n * 60.0)),
            "processes": st.integers(0, 100).map(lambda n: (str(n), "processes", n)),
            "tools": st.lists(st.sampled_from(["search", "fetch"]), min_size=1, unique=True).map(
                lambda names: (",".join(names), "tools", tuple(names))
            ),
        },
    )
)
def test_every_limit_that_is_written_is_the_limit_that_is_granted(limits: dict[str, tuple[str, str, object]]) -> None:
    text = "python " + " ".join(f"{name}={written}" for name, (written, _, _) in limits.items())
    fields: dict[str, Any] = {field: value for _, field, value in limits.values()}
    expected = Permissions(**fields)
    assert read(text)["permissions"] == expected


@given(st.text(max_size=60))
def test_wild_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        info = parse_info(text, line=3, column=5)
        read_attributes(info.attributes, None)
    except InvalidPlan as error:
        line, _, column = error.where.partition(":")
        assert (line, int(column) >= 5) == ("3", True)


def test_an_unknown_attribute_is_refused_with_its_place_a_guess_and_the_list() -> None:
    with pytest.raises(InvalidPlan) as caught:
        read("python id=a tiemout=5")
    error = caught.value
    assert error.where == "7:16"
    assert "'tiemout'" in error.what
    assert "did you mean timeout?" in error.remedy
    assert all(name in error.remedy for name in ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        ("python timeout=soon", "7:19", "5s"),
        ("python memory=lots", "7:18", "128MB"),
        ("python retries=-1", "7:19", "whole number"),
        ("python objective=soon", "7:21", "slo 100ms"),
        ("python critical=yes", "7:20", "true or false"),
        ("python retries=²", "7:19", "whole number"),
        ("python trust=total", "7:17", "verified"),
        ("python timeout=0", "7:19", "at least"),
        ("python network=*.com", "7:19", "top-level"),
        ("python read=../x", "7:16", "climbs"),
        ("python needs=a,,b", "7:17", "commas"),
        ("python for_each=a b=1", "7:22", "unknown attribute"),
        ("python inputs={x", "7:18", "JSON"),
        ("python id=a id=b", "7:19", "twice"),
        ("python id", "7:11", "no value"),
        ('python id="a', "7:11", "cannot read"),
    ],
)
def test_a_wrong_value_is_refused_at_its_own_column(text: str, where: str, part: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        read(text)
    assert (caught.value.where, part in str(caught.value)) == (where, True), str(caught.value)


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidPlan):
        read("python inputs='" + '{"a":' * 100_000 + "'")


def test_inputs_are_a_reference_or_static_json() -> None:
    assert read("wat inputs=prepare")["inputs"] == Reference("prepare")
    assert read("wat inputs=item.series")["inputs"] == Reference("item", ("series",))
    assert read("""wat inputs='{"args": [1, 2.5]}'""")["inputs"] == {"args": [1, 2.5]}


def test_limits_that_are_not_written_fall_to_the_ceiling_and_written_ones_stand() -> None:
    ceiling = Permissions(timeout_s=2.0, memory_bytes=16 * MiB)
    assert read("python", ceiling)["permissions"] == ceiling
    permissions = read("python timeout=30 memory=8MB", ceiling)["permissions"]
    assert isinstance(permissions, Permissions)
    assert (permissions.timeout_s, permissions.memory_bytes) == (30.0, 8 * MiB)


def test_read_and_write_make_one_filesystem() -> None:
    permissions = read("python read=./data/* write=./out/**")["permissions"]
    assert isinstance(permissions, Permissions)
    assert (permissions.filesystem.read, permissions.filesystem.write) == (("./data/*",), ("./out/**",))
