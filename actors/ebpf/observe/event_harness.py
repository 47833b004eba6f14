"""The C text around an author's event program: whose events count, until when, where its table is.

The author's functions see one event, a key on the stack and the value of that key; no
map, no helper but reads of the observed process's memory. The scan counts the calls
that are the harness's own: each stands in a block of its own that the compiler copies
nowhere (``rv_no_copies``, see `runvisor.actors.ebpf.harness`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from runvisor.actors.ebpf.agreement import FUNCTION
from runvisor.actors.ebpf.compiler import BODY_PATH
from runvisor.actors.ebpf.observe.agreement import CONTROL_MAP, TABLE_MAP, TARGETS_MAP
from runvisor.actors.ebpf.observe.event_context import EventContext
from runvisor.policies.bytecode import scan
from runvisor.policies.event_programs import ENTRY, KEY_ENTRY, EventProgram

MAX_INSTRUCTIONS: Final = 4096
"""Of one event program: what it costs at each event of the observed process."""
_LOOKUP, _UPDATE, _NOW, _CORE, _IDS, _COMM = 1, 2, 5, 8, 14, 16
_READ_USER, _READ_KERNEL, _READ_USER_TEXT = 112, 113, 114
_MAPS: Final = 3
_HELPERS: Final = (_LOOKUP, _UPDATE, _NOW, _CORE, _IDS, _COMM)
"""What the harness calls beside one lookup for each map."""
_OFFERED: Final = (_READ_USER, _READ_USER_TEXT)
"""What the author may call."""

_INLINE_ALL: Final = """\
#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function)
#pragma clang attribute push(__attribute__((always_inline)), apply_to = function)
"""
_END_INLINE_ALL: Final = "#pragma clang attribute pop\n#pragma clang attribute pop\n"
_PROLOGUE: Final = f"""\
#line 1 "harness.c"
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
void rv_no_copies(void) __attribute__((noduplicate)) asm("llvm.sideeffect");
static void *(*rv_lookup)(u64, const void *) = (void *){_LOOKUP};
static long (*rv_update)(u64, const void *, const void *, u64) = (void *){_UPDATE};
static u64 (*rv_now)(void) = (void *){_NOW};
static u32 (*rv_core)(void) = (void *){_CORE};
static u64 (*rv_ids)(void) = (void *){_IDS};
static long (*rv_comm)(void *, u32) = (void *){_COMM};
static long (*rv_read_kernel)(void *, u32, u64) = (void *){_READ_KERNEL};
static long (*read_user)(void *, u32, u64) = (void *){_READ_USER};
static long (*read_user_text)(void *, u32, u64) = (void *){_READ_USER_TEXT};
struct rv_control {{ u64 until, follows_children, lost; }};
"""
_EVENT: Final = """\
struct event {{
    u32 pid, tid;
    u64 time_ns;
    char comm[16];
    u32 cpu;
    {members}
}};
"""
_PROGRAM: Final = """\
int {function}(u64 *context)
{{
    u64 ids = rv_ids();
    u32 thread = ids, zero = 0;
    rv_no_copies();
    if (!rv_lookup(rv_map(1, {targets}), &thread))
        return 0;
    rv_no_copies();
    struct rv_control *control = rv_lookup(rv_map(1, {control}), &zero);
    u64 now = rv_now();
    if (!control || now >= control->until)
        return 0;
    struct event event = {{ .pid = ids >> 32, .tid = ids, .time_ns = now }};
    event.cpu = rv_core();
    rv_comm(event.comm, sizeof event.comm);
{filling}
    u8 key[{key_bytes}] __attribute__((aligned(8)));
    __builtin_memset(key, 0, sizeof key);
    asm volatile("" : : "r"(key) : "memory");
    {skip}
    rv_no_copies();
    void *value = rv_lookup(rv_map(1, {table}), key);
    if (!value) {{
        u8 nothing[{value_bytes}] __attribute__((aligned(8)));
        __builtin_memset(nothing, 0, sizeof nothing);
        rv_no_copies();
        rv_update(rv_map(1, {table}), key, nothing, 1);
        rv_no_copies();
        value = rv_lookup(rv_map(1, {table}), key);
        if (!value) {{
            __sync_fetch_and_add(&control->lost, 1);
            return 0;
        }}
    }}
    {entry}(&event, value);
    return 0;
}}
"""


def key_bytes(program: EventProgram) -> int:
    """Return the size of the table's key: without one of the program's, a word that is always zero."""
    return program.key.size if program.key else 4


def check_of(context: EventContext) -> Callable[[bytes], int]:
    """Return the scan of a program's instructions; it returns their cost, or raises as `scan` does."""
    own = (*_HELPERS, *(_READ_KERNEL,) * context.kernel_reads)
    return functools.partial(
        scan, loop=None, max_instructions=MAX_INSTRUCTIONS, maps=_MAPS, helpers=own, offered=_OFFERED
    )


def main_text(program: EventProgram, context: EventContext) -> str:
    """Return the compiler's main file; it includes the body, which holds the author's text.

    Args:
        program: The author's.
        context: What it finds where it runs.
    """
    harness = _PROGRAM.format(
        function=FUNCTION,
        targets=TARGETS_MAP,
        control=CONTROL_MAP,
        table=TABLE_MAP,
        filling="\n".join(f"    {line}" for line in context.filling),
        key_bytes=key_bytes(program),
        value_bytes=program.value.size,
        skip=f"if (!{KEY_ENTRY}(&event, (void *)key)) return 0;" if program.key else "",
        entry=ENTRY,
    )
    return (
        f"{_INLINE_ALL}{program.declarations}{_END_INLINE_ALL}{_PROLOGUE}{_EVENT.format(members=context.members)}{harness}"
        f'{_INLINE_ALL}#include "{BODY_PATH}"\n{_END_INLINE_ALL}'
    )
