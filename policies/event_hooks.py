"""Where an event program runs, as its first line says: at a tracepoint, or at a function of a program or library.

| line | runs |
|---|---|
| ``// raw_tracepoint: sys_enter`` | at a tracepoint, with the arguments that the kernel passes it |
| ``// tracepoint: sched:sched_switch`` | at a tracepoint, with its fields by name |
| ``// uprobe: /usr/lib/libssl.so.3:SSL_write`` | when a function is entered, with its arguments |
| ``// uretprobe: libc:malloc`` | when it returns, with its result |

A file is a path as the observed process sees it, or the name of one that it has mapped:
``libc`` stands for ``libc.so.6``. A function may have a version (``memcpy@GLIBC_2.14``) and,
but for ``uretprobe``, an offset in bytes (``work+0x1c``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from runvisor.policies.errors import GuestSyntaxError

HookKind = Literal["raw_tracepoint", "tracepoint", "uprobe", "uretprobe"]
KINDS: Final[tuple[HookKind, ...]] = ("raw_tracepoint", "tracepoint", "uprobe", "uretprobe")
_LINE: Final = re.compile(r"\s*+(?://|/\*)\s*+(\w++)\s*+:\s*+(\S++)(?:\s*+\*/)?+[^\S\n]*+(?:\n|$)")
"""What a repetition took it keeps, so that a text that fits nowhere is read once, not once for each of its spaces."""
_NAME: Final = re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII)
_FIELDED: Final = re.compile(r"([A-Za-z_][\w-]{0,127}):([A-Za-z_]\w{0,127})", re.ASCII)
_FUNCTION: Final = re.compile(
    r"(?P<file>[^\s\0]{1,1023}):(?P<symbol>[A-Za-z_.$][\w.$]{0,511})(?:@{1,2}(?P<version>[\w.]{1,127}))?"
    r"(?:\+(?P<offset>0[xX][0-9a-fA-F]{1,8}|[0-9]{1,9}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class EventHook:
    """Where a program runs."""

    kind: HookKind
    event: str
    """As it was written."""
    category: str = ""
    """Of a tracepoint with fields."""
    name: str = ""
    """Of a tracepoint."""
    file: str = ""
    """A path with a slash, or the name of a mapped file."""
    symbol: str = ""
    version: str = ""
    offset: int = 0
    """Bytes behind the symbol."""

    @property
    def is_at_function(self) -> bool:
        """Whether it is in a file of user space, not in the kernel."""
        return self.kind in ("uprobe", "uretprobe")

    @property
    def title(self) -> str:
        """What its table is called."""
        return f"{self.kind} {self.event}"


def read_hook(source: str) -> EventHook:
    """Return where a program runs.

    Args:
        source: The author's C text.

    Raises:
        GuestSyntaxError: Its first line does not say it.

    Example:
        >>> hook = read_hook("// uprobe: libc:malloc+4")
        >>> hook.kind, hook.file, hook.symbol, hook.offset
        ('uprobe', 'libc', 'malloc', 4)
        >>> read_hook("// tracepoint: sched_switch")
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.GuestSyntaxError: 'sched_switch' is no name of a tracepoint (at 1:1); \
write category:name, for one sched:sched_switch
    """
    found = _LINE.match(source)
    if found is None or found[1] not in KINDS:
        raise GuestSyntaxError(
            "the program does not say where it runs", "1:1", "begin it with a line // raw_tracepoint: sched_switch"
        )
    kind, event = cast(HookKind, found[1]), found[2]
    if kind == "raw_tracepoint":
        if not _NAME.fullmatch(event):
            raise GuestSyntaxError(f"{event[:80]!r} is no name of a tracepoint", "1:1")
        return EventHook(kind, event, name=event)
    if kind == "tracepoint":
        if (pair := _FIELDED.fullmatch(event)) is None:
            raise GuestSyntaxError(
                f"{event[:80]!r} is no name of a tracepoint", "1:1", "write category:name, for one sched:sched_switch"
            )
        return EventHook(kind, event, category=pair[1], name=pair[2])
    place = _FUNCTION.fullmatch(event)
    if place is None or ("/" in place["file"] and not place["file"].startswith("/")):
        raise GuestSyntaxError(
            f"{event[:80]!r} is no place of a function", "1:1", "write libc:malloc, or /path/to/file:symbol"
        )
    offset = int(place["offset"] or "0", 0 if (place["offset"] or "").lower().startswith("0x") else 10)
    if offset and kind == "uretprobe":
        raise GuestSyntaxError("a function returns as a whole", "1:1", "leave out the offset")
    return EventHook(
        kind, event, file=place["file"], symbol=place["symbol"], version=place["version"] or "", offset=offset
    )
