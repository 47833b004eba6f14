"""WIT types as JSON Schema, for whoever offers a component's functions as tools.

Source: https://json-schema.org/draft/2020-12/schema
"""

from __future__ import annotations

from typing import Any

from runvisor.policies.wit.types import (
    FLOATS,
    INTEGERS,
    Enum,
    Flags,
    Function,
    ListOf,
    Option,
    Record,
    ResultOf,
    Scalar,
    TupleOf,
    Type,
    Variant,
)

Schema = dict[str, Any]


def tool_of(function: Function) -> dict[str, Any]:
    """Return the description of a tool: its name, a description, and schemas of what goes in and comes out.

    Example:
        >>> tool = tool_of(Function("half", (("of", Scalar("u8")),), Scalar("f64")))
        >>> tool["description"], tool["input_schema"]["properties"]
        ('half: func(of: u8) -> f64', {'of': {'type': 'integer', 'minimum': 0, 'maximum': 255}})
    """
    return {
        "name": function.name,
        "description": str(function),
        "input_schema": _by_name(function.parameters),
        "output_schema": {"type": "null"} if function.result is None else schema_of(function.result),
    }


def schema_of(kind: Type) -> Schema:
    """Return the JSON Schema of the plain form of a type.

    Example:
        >>> schema_of(Option(Enum(("red", "green"))))
        {'anyOf': [{'enum': ['red', 'green']}, {'type': 'null'}]}
    """
    match kind:
        case Scalar(name):
            return _scalar(name)
        case ListOf(element):
            return {"type": "array", "items": schema_of(element)}
        case Record(fields):
            return _by_name(fields)
        case TupleOf(items):
            return {
                "type": "array",
                "prefixItems": [schema_of(item) for item in items],
                "items": False,
                "minItems": len(items),
            }
        case Variant(cases):
            return {"anyOf": [_case(name, payload) for name, payload in cases]}
        case Enum(names):
            return {"enum": list(names)}
        case Option(payload):
            inner = _only("some", schema_of(payload)) if isinstance(payload, Option) else schema_of(payload)
            return {"anyOf": [inner, {"type": "null"}]}
        case ResultOf(ok, error):
            return {"anyOf": [_only("ok", _payload(ok)), _only("error", _payload(error))]}
        case Flags(names):
            return {"type": "array", "items": {"enum": list(names)}, "uniqueItems": True}


def _scalar(name: str) -> Schema:
    if name in INTEGERS:
        least, greatest = INTEGERS[name]
        return {"type": "integer", "minimum": least, "maximum": greatest}
    if name in FLOATS:
        return {"type": "number"}
    if name == "bool":
        return {"type": "boolean"}
    return {"type": "string", "minLength": 1, "maxLength": 1} if name == "char" else {"type": "string"}


def _by_name(parts: tuple[tuple[str, Type], ...]) -> Schema:
    return {
        "type": "object",
        "properties": {name: schema_of(kind) for name, kind in parts},
        "required": [name for name, kind in parts if not isinstance(kind, Option)],
        "additionalProperties": False,
    }


def _case(name: str, payload: Type | None) -> Schema:
    if payload is None:
        return {"const": name}
    return {
        "type": "object",
        "properties": {"tag": {"const": name}, "value": schema_of(payload)},
        "required": ["tag", "value"],
        "additionalProperties": False,
    }


def _payload(kind: Type | None) -> Schema:
    return {"type": "null"} if kind is None else schema_of(kind)


def _only(name: str, inner: Schema) -> Schema:
    return {"type": "object", "properties": {name: inner}, "required": [name], "additionalProperties": False}
