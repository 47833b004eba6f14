"""Files opened: path, how, with what result.

The path is read from the caller's memory when the call returns, as it was given:
relative ones as such. A program that changes it from another thread meanwhile shows
what it likes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final

from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.actors.ebpf.observe.names import system_call_number
from runvisor.actors.ebpf.observe.program import Entry, ObservationProgram, error_name, seconds, text_of
from runvisor.policies.observations import Cell, Column

PATH_BYTES: Final = 240
_CALLS: Final = {"open": (0, 1), "openat": (1, 2), "creat": (0, -1), "openat2": (1, 2)}
"""By name: which arguments are the path and the flags."""
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
"""What creat(2) means."""
_FLAGS: Final = (
    ("create", os.O_CREAT),
    ("exclusive", os.O_EXCL),
    ("truncate", os.O_TRUNC),
    ("append", os.O_APPEND),
    ("folder", os.O_DIRECTORY),
    ("no-follow", os.O_NOFOLLOW),
    ("path-only", os.O_PATH),
    ("direct", os.O_DIRECT),
    ("sync", os.O_DSYNC),
)


def _case(name: str, path: int, flags: int) -> str:
    number = system_call_number(name)
    if number is None:  # aarch64 has neither open nor creat
        return ""
    read = {
        "openat2": f"rv_read_user(&open.flags, 8, rv_word(arguments[0] + AT_ARGUMENT_{flags}));",
        "creat": f"open.flags = {_CREATE};",
    }.get(name, f"open.flags = (u32)rv_word(arguments[0] + AT_ARGUMENT_{flags});")
    return (
        f"    if (arguments[1] == {number}) {{ open.path = rv_word(arguments[0] + AT_ARGUMENT_{path}); {read} }} else\n"
    )


_BODY: Final = f"""
struct open {{ u64 at, path, flags; }};
struct opened {{ char path[{PATH_BYTES}]; u64 flags; s64 error; }};
struct count {{ u64 times, ns; }};
INLINE void enter(u64 *arguments)
{{
    u32 thread = rv_ids();
    struct open open = {{}};
    if (!rv_is_observed(thread) || !rv_is_time())
        return;
{"".join(_case(name, *places) for name, places in _CALLS.items())}        return;
    open.at = rv_now();
    if (rv_update(PENDING, &thread, &open, 0))
        rv_lose();
}}
INLINE void leave(u64 *arguments)
{{
    u32 thread = rv_ids();
    struct open *open = rv_lookup(PENDING, &thread);
    if (!open)
        return;
    struct opened opened = {{ .flags = open->flags }};
    u64 path = open->path, took = rv_now() - open->at;
    rv_delete(PENDING, &thread);
    if (!rv_is_time())
        return;
    rv_read_user_text(opened.path, sizeof opened.path, path);
    opened.error = arguments[1] >= -4095ull ? -arguments[1] : 0;
    struct count none = {{}}, *count = rv_entry(&opened, &none);
    if (!count)
        return;
    count->times++;
    count->ns += took;
}}
"""
_KEY: Final = struct.Struct(f"<{PATH_BYTES}sQq")
_COUNT: Final = struct.Struct("<2Q")


def _rows(entries: Iterable[Entry]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for key, values in entries:
        path, flags, error = _KEY.unpack(key)
        counts = [_COUNT.unpack(value) for value in values]
        text = text_of(path)
        if len(path.partition(b"\0")[0]) == PATH_BYTES - 1:
            text += "..."
        result = error_name(error) if error else "ok"
        rows.append((text, how(flags), result, sum(c[0] for c in counts), seconds(sum(c[1] for c in counts))))
    return sorted(rows, key=lambda row: (-int(row[3]), str(row[0]), str(row[1]), str(row[2])))


def how(flags: int) -> str:
    """Return the flags of open(2) in words.

    Example:
        >>> how(os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        'write create'
    """
    modes = {os.O_RDONLY: "read", os.O_WRONLY: "write", os.O_RDWR: "read+write"}
    mode = modes.get(flags & os.O_ACCMODE, "no access")
    return " ".join([mode, *(word for word, bit in _FLAGS if flags & bit == bit)])


FILES: Final = ObservationProgram(
    "files",
    _BODY,
    (Hook("rv_at_enter", "sys_enter"), Hook("rv_at_leave", "sys_exit")),
    _KEY.size,
    _COUNT,
    pending_bytes=24,
    entries=8192,
    columns=(
        Column("path", "text"),
        Column("how", "text"),
        Column("result", "text"),
        Column("times", "count"),
        Column("total_s", "seconds"),
    ),
    rows=_rows,
)
"""The observation ``files``."""
