"""The C text around a packet program: the function that walks over the capture.

The harness runs once per BPF_PROG_TEST_RUN and takes the packets of a window one after
the other, as far as the cursor says; a packet that does not fit ends it, and the pool's
side says why. A filter reads the packet where it lies. For an XDP program the harness
makes the frame that TEST_RUN has given as long as the packet (bpf_xdp_adjust_tail) and
copies the packet in (bpf_xdp_store_bytes): some hundred nanoseconds, where a system call
for each packet takes microseconds.

The cursor lies in a map of its own, to which no pointer of the author's leads: so it
bounds the loop whatever the program writes. The iterator's step is read, though nobody
needs it: where the verifier follows mispredicted branches too, the read is where it sees
that one of them, with the iterator at its end, leads nowhere. For the empty asm
statements and ``rv_no_copies`` see `runvisor.actors.ebpf.harness`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from runvisor.actors.ebpf.agreement import FUNCTION
from runvisor.actors.ebpf.compile_guest import HEADERS
from runvisor.actors.ebpf.packets.agreement import (
    CAPTURE_BYTES,
    CURSOR_MAP,
    MOST_PACKETS,
    REACH_BYTES,
    STATE_MAP,
    VERDICT_BYTES,
    VERDICTS_AT,
    WINDOW_MAP,
    ZEROS_AT,
)
from runvisor.policies.bytecode import Loop
from runvisor.policies.captures import PACKET_HEADER_BYTES
from runvisor.policies.packet_programs import PacketProgram
from runvisor.policies.packets import PACKET_BYTES, Kind

_HEADER_DIGEST: Final = hashlib.sha256((HEADERS / "include/runvisor/packets.h").read_bytes()).hexdigest()
"""In the main file, so that what was compiled with another header is not taken for the same."""
_INLINE_ALL: Final = """\
#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function)
#pragma clang attribute push(__attribute__((always_inline)), apply_to = function)
"""
_END_INLINE_ALL: Final = "#pragma clang attribute pop\n#pragma clang attribute pop\n"
_PROLOGUE: Final = """\
#line 1 "harness.c"
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
struct rv_cursor { u32 next, left, bytes, done, swapped, unit, frame, back; };
"""
_MAPS: Final = f"""\
    u32 zero = 0;
    struct rv_cursor *cursor = rv_lookup(rv_map(1, {CURSOR_MAP}), &zero);
    if (!cursor)
        return 0;
    struct state *state = rv_lookup(rv_map(1, {STATE_MAP}), &zero);
    if (!state)
        return 0;
    u8 *window = rv_lookup(rv_map(1, {WINDOW_MAP}), &zero);
    if (!window)
        return 0;
"""
_PACKET: Final = f"""\
        u32 left = cursor->left;
        if (!left)
            break;
        u64 at = cursor->next;
        asm volatile("" : "+r"(at));
        if (at > {CAPTURE_BYTES - PACKET_HEADER_BYTES})
            break;
        asm volatile("" : "+r"(at));
        u8 *header = window + at;
        u64 length = *(u32 *)(header + 8);
        if (cursor->swapped)
            length = __builtin_bswap32(length);
        asm volatile("" : "+r"(length));
        if (length < {{least}} || length > {{most}})
            break;
        asm volatile("" : "+r"(length));
        u64 next = at + {PACKET_HEADER_BYTES} + length;
        if (next > cursor->bytes)
            break;
        u64 index = cursor->done;
        asm volatile("" : "+r"(index));
        if (index >= {MOST_PACKETS})
            break;
        asm volatile("" : "+r"(index));
        u32 verdict;
{{call}}
        *(u32 *)(window + {VERDICTS_AT} + index * {VERDICT_BYTES}) = verdict;
        cursor->next = next;
        cursor->done = index + 1;
        cursor->left = left - 1;
"""
_FILTER_CALL: Final = """\
        u32 seconds = *(u32 *)header, fraction = *(u32 *)(header + 4), wire = *(u32 *)(header + 12);
        if (cursor->swapped) {
            seconds = __builtin_bswap32(seconds);
            fraction = __builtin_bswap32(fraction);
            wire = __builtin_bswap32(wire);
        }
        u64 time_ns = seconds * 1000000000ull + (u64)fraction * cursor->unit;
        struct packet packet = {window, at + 16, time_ns, 0, length, wire};
        verdict = on_packet(&packet, state);
        if (packet.rv_beyond)
            verdict = 0;
        if (verdict > length)
            verdict = length;
"""
_XDP_CALL: Final = """\
        if (rv_adjust_tail(frame, (int)length - (int)cursor->frame))
            break;
        cursor->frame = length;
        if (rv_store_bytes(frame, 0, header + 16, length))
            break;
        verdict = on_xdp((void *)(long)frame->data, (void *)(long)frame->data_end, state);
        if (cursor->back && rv_load_bytes(frame, 0, header + 16, length))
            break;
"""
_XDP_HELPERS: Final = """\
struct rv_frame { u32 data, data_end; };
static long (*rv_adjust_tail)(void *, int) = (void *)65;
static long (*rv_load_bytes)(void *, u32, void *, u32) = (void *)189;
static long (*rv_store_bytes)(void *, u32, void *, u32) = (void *)190;
"""
_MAY_GOTO: Final = """\
int {function}({context})
{{
{maps}
    for (;;) {{
        asm volatile goto("1: .byte 0xe5; .byte 0; .long ((%l[done] - 1b - 8) / 8) & 0xffff; .short 0" : : : : done);
{packet}
    }}
done:
    return 0;
}}
"""
_ITERATOR: Final = """\
void rv_no_copies(void) __attribute__((noduplicate)) asm("llvm.sideeffect");
struct rv_iterator {{ u64 opaque[1]; }} __attribute__((aligned(8)));
static int (*rv_new)(struct rv_iterator *, int, int) = (void *)0x7e000001;
static int *(*rv_next)(struct rv_iterator *) = (void *)0x7e000002;
static void (*rv_destroy)(struct rv_iterator *) = (void *)0x7e000003;
int {function}({context})
{{
    struct rv_iterator iterator;
{maps}
    rv_new(&iterator, 0, cursor->left);
    for (;;) {{
        rv_no_copies();
        int *step = rv_next(&iterator);
        if (!step)
            break;
        asm volatile("" : : "r"(*step));
{packet}
    }}
    rv_destroy(&iterator);
    return 0;
}}
"""
_CONTEXTS: Final[dict[Kind, str]] = {"filter": "void *context", "xdp": "struct rv_frame *frame"}
_CALLS: Final[dict[Kind, str]] = {"filter": _FILTER_CALL, "xdp": _XDP_CALL}


def main_text(program: PacketProgram, loop: Loop, body_path: str) -> str:
    """Return the compiler's main file; it includes the body, which holds the author's text.

    Args:
        program: The packet program.
        loop: How the loop is bounded.
        body_path: Where the body will lie.
    """
    least, most = PACKET_BYTES[program.kind]
    harness = (_MAY_GOTO if loop == "may_goto" else _ITERATOR).format(
        function=FUNCTION,
        context=_CONTEXTS[program.kind],
        maps=_MAPS,
        packet=_PACKET.format(least=least, most=most, call=_CALLS[program.kind]),
    )
    places = f"#define RV_MASK {REACH_BYTES - 1}\n#define RV_ZEROS {ZEROS_AT}\n"
    helpers = _XDP_HELPERS if program.kind == "xdp" else ""
    return (
        f"// {_HEADER_DIGEST}\n{places}#include <runvisor/packets.h>\n"
        f"{_INLINE_ALL}{program.declarations}{_END_INLINE_ALL}"
        f"{_PROLOGUE}{helpers}{harness}"
        f'{_INLINE_ALL}#include "{body_path}"\n{_END_INLINE_ALL}'
    )
