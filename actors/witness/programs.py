"""The programs that count, in C, and the maps between them and us.

A system call that a seccomp filter answers with an errno never passes ``sys_enter``
(the filter runs first), but it does pass ``sys_exit``. So each entry leaves a mark
for its thread, and an exit without one is a call that the filter refused. See
syscall_trace_enter() and syscall_exit_work() in kernel/entry.

The mark names the account too, so that an exit looks nothing up by group: of a thread
that nobody counts there is no mark, and it costs no more than finding that. A mark can
outlive its account; that the account still has the thread's group for its owner shows
whether it has.

``sched_switch`` charges the time since the core's last switch to whoever leaves it.
A thread that writes is charged up to there, so that an answer finds its own time
counted, and one that ends is charged before anybody can learn of its end.
"""

from __future__ import annotations

from typing import Final

from runvisor.actors.ebpf.maps import Map, MapKind
from runvisor.policies.witness import ACCOUNT_BYTES, CALLS

PROGRAMS: Final = {
    "rv_enter": "sys_enter",
    "rv_exit": "sys_exit",
    "rv_switch": "sched_switch",
    "rv_end": "sched_process_exit",
}
"""Each function, and the raw tracepoint that it is for."""
ACCOUNTS: Final = 512
"""How many executions can be counted at once."""
_MMAPABLE: Final = 1 << 10
_MAX_THREADS: Final = 4 * 1024 * 1024
"""No thread's number is higher: PID_MAX_LIMIT in include/linux/threads.h."""
_MARKS: Final = 64
_IDS, _ACCOUNTS, _ENTERED, _SINCE = range(4)

_READS: Final = (0, 17, 19, 45, 47, 295, 327)  # read, pread64, readv, recvfrom, recvmsg, preadv, preadv2
_WRITES: Final = (1, 18, 20, 44, 46, 296, 328)  # write, pwrite64, writev, sendto, sendmsg, pwritev, pwritev2
_COPIES: Final = (40, 275, 326)  # sendfile, splice, copy_file_range

_TEXT: Final = """\
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
static u64 (*rv_now)(void) = (void *)5;
static u64 (*rv_thread)(void) = (void *)14;
static u64 (*rv_group)(void) = (void *)80;
static long (*rv_read)(void *, u32, const void *) = (void *)113;

struct account {
    u64 owner;
    u64 read_bytes, written_bytes, cpu_ns, switches;
    u64 calls[CALLS], refused_eperm[CALLS], refused_enosys[CALLS];
    u64 denied_eperm[CALLS], denied_eacces[CALLS], denied_erofs[CALLS];
};
struct marks { u32 call[MARKS]; };  /* an account in the upper half, a row and 1 in the lower; or 0 */

enum { READ = 1, WRITTEN = 2 };
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)
#define BOUND(row) do { asm volatile("" : "+r"(row)); if (row >= CALLS) row = CALLS - 1; } while (0)

static inline __attribute__((always_inline)) struct account *own_account(void)
{
    u64 group = rv_group();
    u32 *number = rv_lookup(rv_map(1, IDS), &group);
    return number ? rv_lookup(rv_map(1, ACCOUNTS), number) : 0;
}

static inline __attribute__((always_inline)) u32 *own_mark(void)
{
    u32 thread = rv_thread(), block = thread / MARKS;
    struct marks *marks = rv_lookup(rv_map(1, ENTERED), &block);
    return marks ? &marks->call[thread % MARKS] : 0;
}

static inline __attribute__((always_inline)) void charge(struct account *account, u64 switches)
{
    u32 zero = 0;
    u64 now = rv_now(), *since = rv_lookup(rv_map(1, SINCE), &zero);
    if (!since)
        return;
    if (account && *since) {
        ADD(account->cpu_ns, now - *since);
        if (switches)
            ADD(account->switches, switches);
    }
    *since = now;
}

int rv_enter(struct bpf_raw_tracepoint_args *context)
{
    u64 group = rv_group();
    u32 *number = rv_lookup(rv_map(1, IDS), &group);
    if (!number)
        return 0;
    struct account *account = rv_lookup(rv_map(1, ACCOUNTS), number);
    if (!account)
        return 0;
    u64 row = context->args[1];
    BOUND(row);
    ADD(account->calls[row], 1);
    u32 *mark = own_mark();
    if (mark)
        *mark = *number << 16 | (row + 1);
    switch (row) {
    WRITE_CASES
        charge(account, 0);
    }
    return 0;
}

int rv_exit(struct bpf_raw_tracepoint_args *context)
{
    u32 *mark = own_mark();
    if (!mark)
        return 0;
    s64 answer = context->args[1];
    u32 entered = *mark;
    if (!entered) {
        if (answer != -1 && answer != -38)
            return 0;
        struct account *account = own_account();
        if (!account)
            return 0;
        u64 row;
        rv_read(&row, 8, (void *)(context->args[0] + CALL_AT));
        BOUND(row);
        if (answer == -1)
            ADD(account->refused_eperm[row], 1);
        else
            ADD(account->refused_enosys[row], 1);
        return 0;
    }
    *mark = 0;
    u64 row = (entered & 0xffff) - 1;
    u32 number = entered >> 16, moves = 0;
    if (answer > 0) {
        switch (row) {
        READ_CASES
            moves = READ;
            break;
        WRITE_CASES
            moves = WRITTEN;
            break;
        COPY_CASES
            moves = READ | WRITTEN;
            break;
        default:
            return 0;
        }
    } else if (answer != -1 && answer != -13 && answer != -30) {
        return 0;
    }
    struct account *account = rv_lookup(rv_map(1, ACCOUNTS), &number);
    if (!account || account->owner != rv_group())
        return 0;
    BOUND(row);
    if (moves & READ)
        ADD(account->read_bytes, answer);
    if (moves & WRITTEN)
        ADD(account->written_bytes, answer);
    if (answer == -1)
        ADD(account->denied_eperm[row], 1);
    else if (answer == -13)
        ADD(account->denied_eacces[row], 1);
    else if (answer == -30)
        ADD(account->denied_erofs[row], 1);
    return 0;
}

int rv_switch(struct bpf_raw_tracepoint_args *context)
{
    charge(own_account(), 1);
    return 0;
}

int rv_end(struct bpf_raw_tracepoint_args *context)
{
    charge(own_account(), 0);
    return 0;
}
"""
_CALL_AT: Final = 120
"""Of orig_rax in struct pt_regs, arch/x86/include/asm/ptrace.h."""


def text() -> str:
    """Return the C text of all programs, for x86-64."""
    cases = {"READ": _READS, "WRITE": _WRITES, "COPY": _COPIES}
    numbers = {
        "CALLS": CALLS,
        "MARKS": _MARKS,
        "CALL_AT": _CALL_AT,
        "IDS": _IDS,
        "ACCOUNTS": _ACCOUNTS,
        "ENTERED": _ENTERED,
        "SINCE": _SINCE,
    }
    lines = [f"#define {name} {number}" for name, number in numbers.items()]
    lines += [f"#define {name}_CASES {' '.join(f'case {n}:' for n in calls)}" for name, calls in cases.items()]
    return "\n".join([*lines, _TEXT])


def make_maps() -> dict[int, Map]:
    """Make the maps, by the index that the text names them by.

    Raises:
        OSError: The kernel refuses it.
    """
    return {
        _IDS: Map(MapKind.HASH, 8, 4, ACCOUNTS, name=b"rv_ids"),
        _ACCOUNTS: Map(MapKind.ARRAY, 4, ACCOUNT_BYTES, ACCOUNTS, flags=_MMAPABLE, name=b"rv_accounts"),
        _ENTERED: Map(MapKind.ARRAY, 4, 4 * _MARKS, _MAX_THREADS // _MARKS, name=b"rv_entered"),
        _SINCE: Map(MapKind.PER_CORE_ARRAY, 4, 8, 1, cores=1, name=b"rv_since"),
    }


def shared_maps(maps: dict[int, Map]) -> tuple[int, int]:
    """Return the descriptors that a pool needs: of the registered ids, and of the accounts."""
    return maps[_IDS].fd, maps[_ACCOUNTS].fd
