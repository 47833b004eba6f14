"""The C text around a record program in the kernel: the function that owns the loop.

The harness is a socket filter that BPF_PROG_TEST_RUN calls once per chunk. The
control block of the fake packet (``skb->cb``) carries the next and the last index;
the return value is how many records were selected. Maps are named by index, so that
the compiler creates none; the loader puts in descriptors.

The next index is read back from the control block on each turn: a value that the
verifier knows nothing of lets it see that the loop's state repeats. The empty asm
statements hide the index from the optimiser, which would else fold the bounds check
into a pointer comparison that the verifier cannot follow.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

from runvisor.actors.ebpf.agreement import (
    BLOCK_WORD,
    COLLECTED_MAP,
    END_WORD,
    FUNCTION,
    NEXT_WORD,
    RECORDS_MAP,
    STATE_MAP,
    block_records,
)
from runvisor.policies.bytecode import Loop
from runvisor.policies.ctokens import tokenize
from runvisor.policies.record_text import ENTRY
from runvisor.policies.records import RecordProgram

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
_COLLECTED_MAP: Final = """\
    u8 *marks = rv_lookup(rv_map(1, {collected_map}), &block);
    if (!marks)
        return 0;
"""
_RECORD: Final = """\
        {{
            u64 at = first + {copy};
            asm volatile("" : "+r"(at));
            if (at >= end || at >= {block_records})
                break;
            asm volatile("" : "+r"(at));
            if ({entry}((struct record *)(records + at * {record_bytes}), state{output})) {{
                selected++;{mark}
            }}
        }}
"""
_OUTPUT: Final = ", (struct output *)(marks + {block_records} + at * {output_bytes})"
_MARK: Final = "\n                marks[at] = 1;"
_MAY_GOTO: Final = """\
int {function}(struct __sk_buff *skb)
{{
{maps}
    for (;;) {{
        asm volatile goto("1: .byte 0xe5; .byte 0; .long ((%l[done] - 1b - 8) / 8) & 0xffff; .short 0" : : : : done);
        u64 first = skb->cb[{next}];
        skb->cb[{next}] = first + {per_turn};
{turn}
    }}
done:
    return selected;
}}
"""
_ITERATOR: Final = """\
void rv_no_copies(void) __attribute__((noduplicate)) asm("llvm.sideeffect");
struct rv_iterator {{ u64 opaque[1]; }} __attribute__((aligned(8)));
static int (*rv_new)(struct rv_iterator *, int, int) = (void *)0x7e000001;
static int *(*rv_next)(struct rv_iterator *) = (void *)0x7e000002;
static void (*rv_destroy)(struct rv_iterator *) = (void *)0x7e000003;
int {function}(struct __sk_buff *skb)
{{
    struct rv_iterator iterator;
{maps}
    u64 start = skb->cb[{next}];
    rv_new(&iterator, 0, (end - start + {per_turn} - 1) / {per_turn});
    for (;;) {{
        rv_no_copies();
        int *step = rv_next(&iterator);
        if (!step)
            break;
        u64 first = start + *(u32 *)step * {per_turn}ull;
{turn}
    }}
    rv_destroy(&iterator);
    return selected;
}}
"""
_DECISIONS: Final = frozenset(("if", "?", "&&", "||", "<", ">", "<=", ">=", "==", "!=", "!"))
_MULTIPLIERS: Final = frozenset(("for", "while", "do", "goto", "switch", "define"))
_MOST_DECISIONS: Final = 6
_COPIES: Final[Mapping[Loop, int]] = {"may_goto": 2, "iterator": 4}


def records_per_turn(source: str, loop: Loop) -> int:
    """Return how many records one turn of the loop takes: some in a simple program, else one.

    The gate costs about as much as a simple filter, and an iterator's call three times
    that, so two or four at a time are faster by a fifth or by half. But the verifier
    follows the paths of all copies; in a program with many it may give up.

    Args:
        source: The author's text, already read.
        loop: What the gate is.

    Example:
        >>> records_per_turn("int on_record(struct record *r, struct state *s) { return r->kind == 3; }", "may_goto")
        2
        >>> records_per_turn("int f(int a) { return a > 1; } int on_record(struct record *r) {}", "iterator")
        1
    """
    words = [token.text for token in tokenize(source) if token.kind != "newline"]
    decisions = sum(word in _DECISIONS for word in words)
    depth = functions = 0
    for before, word in itertools.pairwise(words):
        functions += word == "{" and before == ")" and not depth
        depth += (word == "{") - (word == "}")
    is_simple = functions == 1 and decisions <= _MOST_DECISIONS and _MULTIPLIERS.isdisjoint(words)
    return _COPIES[loop] if is_simple else 1


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
    per_turn = records_per_turn(program.source, loop)
    per_block = block_records(program.record.size, program.output_bytes)
    record = _RECORD.format(
        entry=ENTRY,
        block_records=per_block,
        record_bytes=program.record.size,
        copy="{copy}",
        output=_OUTPUT.format(block_records=per_block, output_bytes=program.output_bytes) if program.output else "",
        mark=_MARK if program.collects else "",
    )
    maps = _MAPS + (_COLLECTED_MAP.format(collected_map=COLLECTED_MAP) if program.collects else "")
    harness = (_MAY_GOTO if loop == "may_goto" else _ITERATOR).format(
        function=FUNCTION,
        maps=maps.format(records_map=RECORDS_MAP, state_map=STATE_MAP, end=END_WORD, block=BLOCK_WORD),
        next=NEXT_WORD,
        per_turn=per_turn,
        turn="".join(record.replace("{copy}", str(copy)) for copy in range(per_turn)),
    )
    return (
        f"{_INLINE_ALL}{program.declarations}{_END_INLINE_ALL}{_PROLOGUE}{harness}"
        f'{_INLINE_ALL}#include "{body_path}"\n{_END_INLINE_ALL}'
    )
