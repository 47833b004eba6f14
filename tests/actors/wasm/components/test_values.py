"""Plain values to component values and back, without a component."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given, settings

from runvisor.actors.wasm.components import capi, values
from runvisor.actors.wasm.components.values import Lifting, lower
from runvisor.policies.errors import OutputLimitExceeded
from runvisor.policies.wit.types import ListOf, Scalar, Type
from tests.policies.wit.generated import typed


@given(typed)
@settings(max_examples=60)
def test_a_value_comes_back_as_it_went(of_type: tuple[Type, Any]) -> None:
    kind, value = of_type
    out = capi.Val()
    lower(kind, value, out)
    try:
        assert Lifting().lift(kind, out) == value
    finally:
        capi.val_delete(ctypes.addressof(out))


def test_a_value_of_too_many_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_MAX_PARTS", 10)
    kind = ListOf(Scalar("u16"))
    out = capi.Val()
    lower(kind, list(range(10)), out)
    try:
        with pytest.raises(OutputLimitExceeded):
            Lifting().lift(kind, out)
    finally:
        capi.val_delete(ctypes.addressof(out))
