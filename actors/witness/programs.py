"""The programs that count, in C, and the maps between them and us.

A system call is counted at its end, where its number, its arguments and its answer are
all known. A call that a seccomp filter answers with an errno ends there too, though the
kernel never looked at it; see syscall_trace_enter() and syscall_exit_work() in
kernel/entry. Where the answer is one that filters give, the sandbox's own filter is
asked again (`runvisor.actors.witness.refusals`): it was refused if the filter says so.

Three things pass there that are not a call's end, or not seen as one. A new thread
comes that way out of the clone(2) of its parent. What rt_sigreturn(2) restores is
another call's registers and no number, -1. And exit(2) and exit_group(2) never come.

Each core remembers whose account the thread on it has, until it switches or anything
is registered or struck off: then a number changes that all programs compare. So of a
thread that nobody counts no group is looked up, call by call.

``sched_switch`` charges the time since the core's last switch to whoever leaves it.
A thread that has written is charged up to there, so that an answer finds its own time
counted, and one that ends is charged before anybody can learn of its end.
"""

from __future__ import annotations

from typing import Final

from runvisor.actors.ebpf.maps import Map, MapKind
from runvisor.actors.jail.seccomp import FilterKind, filter_code
from runvisor.actors.witness.refusals import decision
from runvisor.policies.witness import ACCOUNT_BYTES, CALLS

PROGRAMS: Final = {
    "rv_exit": "sys_exit",
    "rv_switch": "sched_switch",
    "rv_end": "sched_process_exit",
}
"""Each function, and the raw tracepoint that it is for."""
ACCOUNTS: Final = 512
"""How many executions can be counted at once."""
FILTERS: Final = (FilterKind("guest", networked=False), FilterKind("guest", networked=True))
"""The filters of those sandboxes that can be counted."""
_MMAPABLE: Final = 1 << 10
_IDS, _ACCOUNTS, _CORES, _CHANGE = range(4)
SHARED: Final = (_IDS, _ACCOUNTS, _CHANGE)
"""The maps that pools need: of the registered ids, the accounts, and the number that says that ids have changed."""

_READS: Final = (0, 17, 19, 45, 47, 295, 327)  # read, pread64, readv, recvfrom, recvmsg, preadv, preadv2
_WRITES: Final = (1, 18, 20, 44, 46, 296, 328)  # write, pwrite64, writev, sendto, sendmsg, pwritev, pwritev2
_COPIES: Final = (40, 275, 326)  # sendfile, splice, copy_file_range
_FORKS: Final = (56, 57, 58, 435)  # clone, fork, vfork, clone3
_ENDS: Final = (60, 231)  # exit, exit_group

_TEXT: Final = """\
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
static u64 (*rv_now)(void) = (void *)5;
static u64 (*rv_group)(void) = (void *)80;
static u64 *(*rv_regs)(void *) = (void *)175;

struct account {
    u64 filter;
    u64 read_bytes, written_bytes, cpu_ns, switches;
    u64 calls[CALLS], refused_eperm[CALLS], refused_enosys[CALLS];
    u64 denied_eperm[CALLS], denied_eacces[CALLS], denied_erofs[CALLS];
};
struct core { u64 since, change; u32 account, unused; };  /* the account's number and 1, or 0 */

enum { R11 = 6, RCX = 11, ORIG_RAX = 15, RIP = 16, FLAGS = 18, RT_SIGRETURN = 15, ERRNO = 0x50000 };
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)
#define BOUND(row) do { asm volatile("" : "+r"(row)); if (row >= CALLS) row = CALLS - 1; } while (0)

static inline __attribute__((always_inline)) struct core *own_core(void)
{
    u32 zero = 0;
    return rv_lookup(rv_map(1, CORES), &zero);
}

static inline __attribute__((always_inline)) struct account *own_account(struct core *core)
{
    u32 zero = 0;
    u64 *change = rv_lookup(rv_map(1, CHANGE), &zero);
    if (!change)
        return 0;
    u64 last = *(volatile u64 *)change;  /* before the look-up: what is registered meanwhile changes it again */
    if (core->change != last) {
        u64 group = rv_group();
        u32 *found = rv_lookup(rv_map(1, IDS), &group);
        core->account = found ? *found + 1 : 0;
        core->change = last;
    }
    u32 number = core->account;
    if (!number)
        return 0;
    number--;
    return rv_lookup(rv_map(1, ACCOUNTS), &number);
}

static inline __attribute__((always_inline)) void charge(struct core *core, struct account *account, u64 switches)
{
    u64 now = rv_now();
    if (account && core->since) {
        ADD(account->cpu_ns, now - core->since);
        if (switches)
            ADD(account->switches, switches);
    }
    core->since = now;
}

static inline __attribute__((always_inline)) int is_refused(u64 filter, u32 number, u64 *regs, s64 answer)
{
    u32 said = 0;
    switch (filter) {
    DECISION_CASES
    }
    return said == (ERRNO | (u32)-answer);
}

int rv_exit(struct bpf_raw_tracepoint_args *context)
{
    struct core *core = own_core();
    struct account *account = core ? own_account(core) : 0;
    if (!account)
        return 0;
    u64 *regs;
    asm("%0 = %1" : "=r"(regs) : "r"(context->args[0]));  /* bcc would read each word by a call */
    s64 answer = context->args[1];
    u32 number = regs[ORIG_RAX];
    u64 row = number;
    BOUND(row);
    int refused = (answer == -1 || answer == -38) && is_refused(account->filter, number, regs, answer);
    /* A call by the number -1 is refused, and has in both what the instruction left there. */
    if (number == -1 && !(refused && regs[RCX] == regs[RIP] && regs[R11] == regs[FLAGS])) {
        ADD(account->calls[RT_SIGRETURN], 1);
        return 0;
    }
    if (refused) {
        if (answer == -1)
            ADD(account->refused_eperm[row], 1);
        else
            ADD(account->refused_enosys[row], 1);
        return 0;
    }
    if (answer > 0) {
        switch (row) {
        READ_CASES
            ADD(account->read_bytes, answer);
            break;
        WRITE_CASES
            ADD(account->written_bytes, answer);
            charge(core, account, 0);
            break;
        COPY_CASES
            ADD(account->read_bytes, answer);
            ADD(account->written_bytes, answer);
            break;
        }
    } else if (answer == 0) {
        switch (row) {
        FORK_CASES
            return 0;
        }
    } else if (answer == -1) {
        ADD(account->denied_eperm[row], 1);
    } else if (answer == -13) {
        ADD(account->denied_eacces[row], 1);
    } else if (answer == -30) {
        ADD(account->denied_erofs[row], 1);
    }
    ADD(account->calls[row], 1);
    return 0;
}

int rv_switch(struct bpf_raw_tracepoint_args *context)
{
    struct core *core = own_core();
    if (!core)
        return 0;
    charge(core, own_account(core), 1);
    core->change = 0;  /* of whoever comes now nothing is known */
    return 0;
}

int rv_end(struct bpf_raw_tracepoint_args *context)
{
    struct core *core = own_core();
    struct account *account = core ? own_account(core) : 0;
    if (!account)
        return 0;
    charge(core, account, 0);
    u64 row = (u32)rv_regs((void *)context->args[0])[ORIG_RAX];
    BOUND(row);
    switch (row) {
    END_CASES
        ADD(account->calls[row], 1);
    }
    return 0;
}
"""


def filter_number(kind: FilterKind | None) -> int:
    """Return what an account calls the filter of its sandbox; 0 is none.

    Raises:
        ValueError: The programs do not know it.
    """
    return 0 if kind is None else FILTERS.index(kind) + 1


def text() -> str:
    """Return the C text of all programs, for x86-64."""
    cases = {"READ": _READS, "WRITE": _WRITES, "COPY": _COPIES, "FORK": _FORKS, "END": _ENDS}
    numbers = {"CALLS": CALLS, "IDS": _IDS, "ACCOUNTS": _ACCOUNTS, "CORES": _CORES, "CHANGE": _CHANGE}
    lines = [f"#define {name} {number}" for name, number in numbers.items()]
    lines += [f"#define {name}_CASES {' '.join(f'case {n}:' for n in calls)}" for name, calls in cases.items()]
    filters = {filter_number(kind): filter_code(kind) for kind in FILTERS}
    asked = [f"case {number}: said = filter_{number}(number, regs); break;" for number in filters]
    lines.append(f"#define DECISION_CASES {' '.join(asked)}")
    return "\n".join([*lines, *(decision(f"filter_{number}", code) for number, code in filters.items()), _TEXT])


def make_maps() -> dict[int, Map]:
    """Make the maps, by the index that the text names them by.

    Raises:
        OSError: The kernel refuses it.
    """
    return {
        _IDS: Map(MapKind.HASH, 8, 4, ACCOUNTS, name=b"rv_ids"),
        _ACCOUNTS: Map(MapKind.ARRAY, 4, ACCOUNT_BYTES, ACCOUNTS, flags=_MMAPABLE, name=b"rv_accounts"),
        _CORES: Map(MapKind.PER_CORE_ARRAY, 4, 24, 1, cores=1, name=b"rv_cores"),
        _CHANGE: Map(MapKind.ARRAY, 4, 8, 1, name=b"rv_change"),
    }
