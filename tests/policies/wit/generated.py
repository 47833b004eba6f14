"""Types of any form, and values that fit them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from runvisor.policies.wit.types import (
    FLOATS,
    INTEGERS,
    Enum,
    Flags,
    ListOf,
    Option,
    Record,
    ResultOf,
    Scalar,
    TupleOf,
    Type,
    Variant,
)

_names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True)
_scalars = st.sampled_from([*INTEGERS, *FLOATS, "bool", "char", "string"]).map(Scalar)


def _with_parts(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    maybe = st.none() | inner
    return st.one_of(
        st.builds(ListOf, inner),
        st.builds(Option, inner),
        st.builds(ResultOf, maybe, maybe),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: TupleOf(tuple(items))),
        _named(inner).map(Record),
        _named(maybe).map(Variant),
    )


def _named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    return _names.flatmap(lambda names: st.tuples(*[st.tuples(st.just(name), inner) for name in names]))


types = st.recursive(
    _scalars | _names.map(lambda names: Enum(tuple(names))) | _names.map(lambda names: Flags(tuple(names))),
    _with_parts,
    max_leaves=6,
)


def values(kind: Type | None) -> st.SearchStrategy[Any]:
    """Values as a component gives them back."""
    match kind:
        case None:
            return st.none()
        case Scalar("bool"):
            return st.booleans()
        case Scalar("char"):
            return st.characters(exclude_categories=["Cs"])
        case Scalar("string"):
            return st.text(st.characters(exclude_categories=["Cs"]))
        case Scalar(name) if name in FLOATS:
            return st.floats(width=32 if name == "f32" else 64, allow_nan=False)
        case Scalar(name):
            return st.integers(*INTEGERS[name])
        case ListOf(Scalar("u8")):
            return st.binary()
        case ListOf(element):
            return st.lists(values(element), max_size=3)
        case Record(fields):
            return st.fixed_dictionaries({name: values(field) for name, field in fields})
        case TupleOf(items):
            return st.tuples(*map(values, items)).map(list)
        case Variant(cases):
            return st.one_of(
                st.just(name)
                if payload is None
                else st.fixed_dictionaries({"tag": st.just(name), "value": values(payload)})
                for name, payload in cases
            )
        case Enum(names):
            return st.sampled_from(names)
        case Option(payload):
            inner = values(payload)
            return st.none() | (st.fixed_dictionaries({"some": inner}) if isinstance(payload, Option) else inner)
        case ResultOf(ok, error):
            return st.fixed_dictionaries({"ok": values(ok)}) | st.fixed_dictionaries({"error": values(error)})
        case Flags(names):
            return st.sets(st.sampled_from(names)).map(lambda given: [name for name in names if name in given])


typed = types.flatmap(lambda kind: st.tuples(st.just(kind), values(kind)))
