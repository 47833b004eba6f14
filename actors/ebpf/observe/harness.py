"""The C text around an observation: whose events count, until when, and where they are kept.

The programs run at every event on the machine; each asks first whether the thread
that it runs for is observed, and then whether the observation's time is over. A text
in the middle sees only the events that pass. Three programs of the harness keep the
set of threads: a thread that is observed makes its new threads, and if asked its
children, observed before they run; exec(2) in a thread other than the first changes
that thread's id; an end takes a thread out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.actors.ebpf.bpf import ProgramType
from runvisor.actors.ebpf.compiler import BODY_PATH
from runvisor.actors.ebpf.observe.agreement import CONTROL_MAP, PENDING_MAP, TABLE_MAP, TARGETS_MAP
from runvisor.actors.jail.kernel import MACHINE

MEMBERS: Final = (
    ("task_struct", "pid"),
    ("task_struct", "tgid"),
    ("task_struct", "files"),
    ("files_struct", "fdt"),
    ("fdtable", "fd"),
    ("fdtable", "max_fds"),
    ("file", "f_path"),
    ("file", "f_inode"),
    ("path", "dentry"),
    ("dentry", "d_name"),
    ("qstr", "name"),
    ("inode", "i_mode"),
)
"""Members of the kernel's structs that texts read, as ``AT_struct_member``."""
_REGISTERS: Final = {"x86_64": (112, 104, 96, 56), "aarch64": (0, 8, 16, 24)}.get(MACHINE, ())
"""Where ``struct pt_regs`` keeps the first four arguments of a system call; see syscall(2)."""

_PROLOGUE: Final = f"""\
#line 1 "harness.c"
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
static long (*rv_update)(u64, const void *, const void *, u64) = (void *)2;
static long (*rv_delete)(u64, const void *) = (void *)3;
static u64 (*rv_now)(void) = (void *)5;
static u64 (*rv_ids)(void) = (void *)14;
static u64 (*rv_task)(void) = (void *)35;
static long (*rv_read_user)(void *, u32, u64) = (void *)112;
static long (*rv_read_kernel)(void *, u32, u64) = (void *)113;
static long (*rv_read_user_text)(void *, u32, u64) = (void *)114;
static long (*rv_read_kernel_text)(void *, u32, u64) = (void *)115;
#define INLINE static inline __attribute__((always_inline))
#define TARGETS rv_map(1, {TARGETS_MAP})
#define CONTROL rv_map(1, {CONTROL_MAP})
#define TABLE rv_map(1, {TABLE_MAP})
#define PENDING rv_map(1, {PENDING_MAP})
struct rv_control {{ u64 until, follows_children, lost; }};
INLINE struct rv_control *rv_control(void)
{{
    u32 zero = 0;
    return rv_lookup(CONTROL, &zero);
}}
INLINE int rv_is_observed(u32 thread) {{ return rv_lookup(TARGETS, &thread) != 0; }}
INLINE int rv_is_time(void)
{{
    struct rv_control *control = rv_control();
    return control && rv_now() < control->until;
}}
INLINE void rv_lose(void)
{{
    struct rv_control *control = rv_control();
    if (control)
        __sync_fetch_and_add(&control->lost, 1);
}}
INLINE u64 rv_word(u64 address)
{{
    u64 word = 0;
    rv_read_kernel(&word, 8, address);
    return word;
}}
INLINE u32 rv_half(u64 address)
{{
    u32 half = 0;
    rv_read_kernel(&half, 4, address);
    return half;
}}
INLINE void *rv_entry(const void *key, const void *nothing)
{{
    void *entry = rv_lookup(TABLE, key);
    if (entry)
        return entry;
    rv_update(TABLE, key, nothing, 1);
    entry = rv_lookup(TABLE, key);
    if (!entry)
        rv_lose();
    return entry;
}}
"""
_TRACKING: Final = """\
int rv_on_fork(struct bpf_raw_tracepoint_args *context)
{
    u64 ids = rv_ids();
    if (!rv_is_observed(ids))
        return 0;
    struct rv_control *control = rv_control();
    u32 thread = rv_half(context->args[1] + AT_task_struct_pid);
    u8 mark = 1;
    if (!control || (!control->follows_children && rv_half(context->args[1] + AT_task_struct_tgid) != ids >> 32))
        return 0;
    if (rv_update(TARGETS, &thread, &mark, 0))
        rv_lose();
    return 0;
}
int rv_on_exec(struct bpf_raw_tracepoint_args *context)
{
    u32 old = context->args[1], thread = rv_ids();
    u8 mark = 1;
    if (old == thread || !rv_is_observed(old))
        return 0;
    rv_update(TARGETS, &thread, &mark, 0);
    rv_delete(TARGETS, &old);
    rv_delete(PENDING, &old);
    return 0;
}
int rv_on_exit(struct bpf_raw_tracepoint_args *context)
{
    u32 thread = rv_ids();
    if (rv_delete(TARGETS, &thread) == 0)
        rv_delete(PENDING, &thread);
    return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Hook:
    """One program of an observation, and where it is attached."""

    function: str
    event: str
    """Name of a raw tracepoint; empty for an event that the host opens."""
    kind: ProgramType = ProgramType.RAW_TRACEPOINT


TRACKING: Final = (
    Hook("rv_on_fork", "sched_process_fork"),
    Hook("rv_on_exec", "sched_process_exec"),
    Hook("rv_on_exit", "sched_process_exit"),
)
"""The harness's own programs, the one at a thread's end last."""


def with_tracking(hooks: Sequence[Hook]) -> tuple[Hook, ...]:
    """Return an observation's hooks and `TRACKING`, in the order in which they are attached, and so called.

    A new id is followed before the observation sees it, and an end is seen before it is
    followed no more.
    """
    return (*TRACKING[:-1], *hooks, TRACKING[-1])


def main_text(offsets: Mapping[tuple[str, str], int], hooks: Sequence[Hook]) -> str:
    """Return the compiler's main file; it includes the body, which holds a function per hook.

    A function is given the tracepoint's arguments, and its name in the body is the
    hook's without ``rv_at_``.

    Args:
        offsets: Where each of `MEMBERS` lies in this kernel.
        hooks: The observation's own programs, apart from `TRACKING`.
    """
    defines = [f"#define AT_{struct}_{member} {offset}" for (struct, member), offset in offsets.items()]
    defines += [f"#define AT_ARGUMENT_{number} {offset}" for number, offset in enumerate(_REGISTERS)]
    entries = [
        f"int {hook.function}(struct bpf_raw_tracepoint_args *context)\n"
        f"{{\n    {hook.function.removeprefix('rv_at_')}(context->args);\n    return 0;\n}}"
        for hook in hooks
    ]
    return "\n".join([*defines, _PROLOGUE, f'#include "{BODY_PATH}"', '#line 1 "harness.c"', *entries, _TRACKING])
