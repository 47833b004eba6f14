"""What the host, the engine and the interpreter say to each other about one task.

The request is a JSON object: ``code``, ``label``, ``env``, and either ``inputs``,
where JSON says them exactly, or ``packed``, base64 of what
`runvisor.policies.values.pack` makes of them. The reply has ``value`` or
``packed`` likewise, or else ``type``, ``what``, ``where``, ``remedy`` and
``traceback`` of an error.
"""

from __future__ import annotations

import json
from typing import Any, Final

_LEAVES: Final = frozenset((bool, int, float, str, type(None)))
_CONTAINERS: Final = (dict, list)
_MAX_DEPTH: Final = 100


def json_text(value: Any) -> str | None:
    """Return a value as JSON, or None if JSON cannot say it exactly.

    It can where all is of JSON's own types to the letter: text as keys, no tuples,
    no subclasses. NaN and infinities are Python's extension of it, which both ends know.

    Example:
        >>> json_text({"a": [1, None, 2.5]}), json_text({1: 2}), json_text((1, 2))
        ('{"a": [1, null, 2.5]}', None, None)
    """
    try:
        text = json.dumps(value)  # first: it finds what holds itself, which the walk below would follow for ever
    except (TypeError, ValueError, RecursionError):  # also integers of thousands of digits
        return None
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is list:
                below_types = set(map(type, item))
                if not below_types <= _LEAVES:
                    below += [part for part in item if type(part) not in _LEAVES]
            elif kind is dict:
                if not set(map(type, item)) <= {str}:
                    return None
                if not set(map(type, item.values())) <= _LEAVES:
                    below += [part for part in item.values() if type(part) not in _LEAVES]
            elif kind not in _LEAVES:
                return None
        if not below:
            break
        level = below
    else:
        return None
    return text
