"""The places where authors' event programs run: found in the kernel, in its tracefs or in a file, and opened.

A raw tracepoint is opened by the jailed process itself. A tracepoint takes tracefs, a function the
file: the pool opens those, and the jailed process gets the descriptor of the event and nothing else.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.actors.ebpf import attach, btf
from runvisor.actors.ebpf.agreement import FUNCTION
from runvisor.actors.ebpf.observe import event_context
from runvisor.actors.ebpf.observe.event_context import EventContext
from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.actors.ebpf.observe.observed_files import open_observed
from runvisor.actors.jail.kernel import MACHINE
from runvisor.policies.elf_symbols import function_offset
from runvisor.policies.errors import ConfigError, SpawnFailed
from runvisor.policies.event_hooks import EventHook
from runvisor.policies.event_programs import EventProgram
from runvisor.policies.observations import ObservationRequest
from runvisor.policies.tracepoint_format import read_format, used_fields

_NEAR: Final = 3
_TITLE_PATH: Final = 1000
_FUNCTION_MACHINES: Final = ("x86_64",)
"""Where it is known, and tested, how functions are called."""


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Where one program runs."""

    title: str
    """What its table is called."""
    context: EventContext
    hook: Hook
    members: tuple[str, ...] = ()
    """All fields of its events, if they have names."""
    open: Callable[[], int] | None = None
    """Opens its events, for somebody else to attach to; None: they have a name."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[Sequence[int]]:
        """Open what the jailed process is to be given.

        Raises:
            SpawnFailed: The kernel does not let us.
        """
        if self.open is None:
            yield ()
            return
        try:
            fd = self.open()
        except OSError as error:
            raise SpawnFailed(
                f"the kernel opens no {self.title}: {error.strerror or error}",
                "ebpf/observe",
                "it needs root, CONFIG_UPROBE_EVENTS for functions, and for tracepoints CONFIG_EVENT_TRACING",
            ) from None
        try:
            yield (fd,)
        finally:
            os.close(fd)


class EventPlaces:
    """Finds the places that programs name. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._raw: dict[str, int] = {}

    def find(self, program: EventProgram, request: ObservationRequest, stack: contextlib.ExitStack) -> EventPlace:
        """Find where a program runs.

        Args:
            program: As it was read.
            request: Whom it observes.
            stack: Holds what is open for as long as the place is needed.

        Raises:
            ConfigError: There is no such tracepoint, file or function; names those that are called nearly so.
            SpawnFailed: The kernel does not say.
        """
        hook = program.hook
        if hook.kind == "raw_tracepoint":
            context = event_context.raw_tracepoint(hook.name, self._arguments(hook.name))
            return EventPlace(hook.title, context, Hook(FUNCTION, hook.name))
        if hook.kind == "tracepoint":
            return _tracepoint(hook, program.names)
        return _function(hook, request, stack)

    def _arguments(self, event: str) -> int:
        """Return how many arguments a raw tracepoint has."""
        with self._lock:
            if not self._raw:
                try:
                    self._raw = btf.raw_tracepoints(btf.VMLINUX.read_bytes())
                except (OSError, ValueError) as error:
                    raise SpawnFailed(
                        f"the kernel's type information cannot be read: {error}",
                        str(btf.VMLINUX),
                        "boot a kernel with CONFIG_DEBUG_INFO_BTF",
                    ) from None
            known = self._raw
        if event not in known:
            raise _unknown("raw tracepoint", event, known)
        return known[event]


def _tracepoint(hook: EventHook, names: Collection[str]) -> EventPlace:
    try:
        with contextlib.ExitStack() as stack:
            tracefs = attach.open_tracefs()
            stack.callback(os.close, tracefs)
            try:
                number = attach.tracepoint_id(tracefs, hook.category, hook.name)
                fields = read_format(attach.tracepoint_format(tracefs, hook.category, hook.name))
            except FileNotFoundError:
                raise _unknown("tracepoint", hook.event, attach.tracepoint_names(tracefs)) from None
    except (OSError, ValueError) as error:
        raise SpawnFailed(
            f"the kernel's tracepoints cannot be read: {error}", "tracefs", "it needs root and CONFIG_EVENT_TRACING"
        ) from None
    context = event_context.tracepoint(used_fields(fields, names))
    members = tuple(field.member for field in fields)
    return EventPlace(
        hook.title, context, Hook(FUNCTION, "", context.kind), members, lambda: attach.open_tracepoint(number)
    )


def _function(hook: EventHook, request: ObservationRequest, stack: contextlib.ExitStack) -> EventPlace:
    if MACHINE not in _FUNCTION_MACHINES:
        raise ConfigError(
            f"functions are observed on {', '.join(_FUNCTION_MACHINES)} only", "program", "use a tracepoint"
        )
    if hook.offset and request.follow:
        raise ConfigError(
            "an offset that is amidst an instruction breaks every process that comes there",
            "program",
            "observe the process alone: follow=False, or --only",
        )
    file = open_observed(request.pid, hook.file)
    stack.callback(os.close, file.fd)
    offset = function_offset(
        lambda at, size: os.pread(file.fd, size, at),
        hook.symbol,
        version=hook.version,
        plus=hook.offset,
        machine=MACHINE,
    )
    at_return, pid = hook.kind == "uretprobe", -1 if request.follow else request.pid
    context = event_context.function_return() if at_return else event_context.function_entry()
    symbol = hook.event.rpartition(":")[2]
    return EventPlace(
        f"{hook.kind} {file.path[:_TITLE_PATH]}:{symbol}",
        context,
        Hook(FUNCTION, "", context.kind),
        open=lambda: attach.open_uprobe(file.fd, offset, at_return=at_return, pid=pid),
    )


def _unknown(what: str, event: str, known: Collection[str]) -> ConfigError:
    near = difflib.get_close_matches(event, known, _NEAR)
    return ConfigError(
        f"the kernel has no {what} {event}",
        "program",
        f"use {' or '.join(near)}" if near else "see include/trace/events in the kernel's source",
    )
