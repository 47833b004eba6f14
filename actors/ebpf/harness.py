"""The C text around a record program in the kernel: the function that owns the loop.

The harness is a socket filter that BPF_PROG_TEST_RUN calls once per chunk. The
control block of the fake packet (``skb->cb``) carries the next and the last index;
the return value is how many records were selected. Maps are named by index, so that
the compiler creates none; the loader puts in descriptors.

One turn of the loop takes two records: the gate costs about as much as a simple filter.
The next index is read back from the control block on each turn: a value that the
verifier knows nothing of lets it see that the loop's state repeats. The empty asm
statements hide the index from the optimiser, which would else fold the bounds check
into a pointer comparison that the verifier cannot follow.
"""

from __future__ import annotations

from typing import Final

from runvisor.actors.ebpf.agreement import (
    BLOCK_WORD,
    END_WORD,
    FUNCTION,
    NEXT_WORD,
    RECORDS_MAP,
    RECORDS_PER_TURN,
    STATE_MAP,
    block_records,
)
from runvisor.policies.bytecode import Loop
from runvisor.policies.records import ENTRY, RecordProgram

_INLINE_ALL: Final = """\
#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function)
#pragma clang attribute push(__attribute__((always_inline)), apply_to = function)
"""
_END_INLINE_ALL: Final = "#pragma clang attribute pop\n#pragma clang attribute pop\n"

_PROLOGUE: Final = """\
#line 1 "harness.c"
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
"""
_MAPS: Final = """\
    u32 zero = 0, block = skb->cb[{block}], selected = 0;
    u64 end = skb->cb[{end}];
    struct state *state = rv_lookup(rv_map(1, {state_map}), &zero);
    if (!state)
        return 0;
    u8 *records = rv_lookup(rv_map(1, {records_map}), &block);
    if (!records)
        return 0;
"""
_RECORD: Final = """\
        {{
            u64 at = first + {copy};
            asm volatile("" : "+r"(at));
            if (at >= end || at >= {block_records})
                break;
            asm volatile("" : "+r"(at));
            if ({entry}((struct record *)(records + at * {record_bytes}), state))
                selected++;
        }}
"""
_RECORDS: Final = "".join(_RECORD.replace("{copy}", str(copy)) for copy in range(RECORDS_PER_TURN))
_MAY_GOTO: Final = f"""\
int {{function}}(struct __sk_buff *skb)
{{{{
{_MAPS}
    for (;;) {{{{
        asm volatile goto("1: .byte 0xe5; .byte 0; .long ((%l[done] - 1b - 8) / 8) & 0xffff; .short 0" : : : : done);
        u64 first = skb->cb[{{next}}];
        skb->cb[{{next}}] = first + {RECORDS_PER_TURN};
{_RECORDS}
    }}}}
done:
    return selected;
}}}}
"""
_ITERATOR: Final = f"""\
void rv_no_copies(void) __attribute__((noduplicate)) asm("llvm.sideeffect");
struct rv_iterator {{{{ u64 opaque[1]; }}}} __attribute__((aligned(8)));
static int (*rv_new)(struct rv_iterator *, int, int) = (void *)0x7e000001;
static int *(*rv_next)(struct rv_iterator *) = (void *)0x7e000002;
static void (*rv_destroy)(struct rv_iterator *) = (void *)0x7e000003;
int {{function}}(struct __sk_buff *skb)
{{{{
    struct rv_iterator iterator;
{_MAPS}
    u64 start = skb->cb[{{next}}];
    rv_new(&iterator, 0, (end - start + {RECORDS_PER_TURN - 1}) / {RECORDS_PER_TURN});
    for (;;) {{{{
        rv_no_copies();
        int *step = rv_next(&iterator);
        if (!step)
            break;
        u64 first = start + *(u32 *)step * {RECORDS_PER_TURN}ull;
{_RECORDS}
    }}}}
    rv_destroy(&iterator);
    return selected;
}}}}
"""


def main_text(program: RecordProgram, loop: Loop, body_path: str) -> str:
    """Return the compiler's main file; it includes the body, which holds the author's text.

    bcc rewrites what lies in the main file only, so the author's text keeps its
    lines and is not taken for bcc's own dialect. Every function of it is made static
    and inlined: bcc relocates no calls.

    Args:
        program: The record program.
        loop: How the loop is bounded.
        body_path: Where the body will lie.
    """
    template = _MAY_GOTO if loop == "may_goto" else _ITERATOR
    harness = template.format(
        function=FUNCTION,
        entry=ENTRY,
        records_map=RECORDS_MAP,
        state_map=STATE_MAP,
        next=NEXT_WORD,
        end=END_WORD,
        block=BLOCK_WORD,
        record_bytes=program.record.size,
        block_records=block_records(program.record.size),
    )
    return (
        f"{_INLINE_ALL}{program.declarations}{_END_INLINE_ALL}{_PROLOGUE}{harness}"
        f'{_INLINE_ALL}#include "{body_path}"\n{_END_INLINE_ALL}'
    )
