"""Bytes read and written by system calls, by process, descriptor and what it leads to.

The name is the last part of the file's path. It is read when the call begins: until the
call ends another thread may close the descriptor, and its number be another file's. A
descriptor that the kernel refused leads to nothing. Memory that is mapped and io_uring move bytes without such calls.
"""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Iterable
from typing import Final

from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.actors.ebpf.observe.names import system_call_number
from runvisor.actors.ebpf.observe.program import Entry, ObservationProgram, text_of
from runvisor.policies.observations import Cell, Column

NAME_BYTES: Final = 48
_READS: Final = ("read", "pread64", "readv", "preadv", "preadv2", "recvfrom", "recvmsg")
_WRITES: Final = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg")
_BOTH: Final = {"sendfile": (1, 0), "copy_file_range": (0, 2), "splice": (0, 2)}
"""Which argument is read from, and which is written to."""


def _is_one_of(names: Iterable[str]) -> str:
    numbers = [number for name in names if (number := system_call_number(name)) is not None]
    return " || ".join(f"arguments[1] == {number}" for number in numbers)


def _both() -> str:
    lines = []
    for name, (source, sink) in _BOTH.items():
        if (number := system_call_number(name)) is not None:
            lines.append(
                f"    else if (arguments[1] == {number}) {{ from = rv_half(arguments[0] + AT_ARGUMENT_{source});"
                f" to = rv_half(arguments[0] + AT_ARGUMENT_{sink}); }}\n"
            )
    return "".join(lines)


_BODY: Final = f"""
struct end {{ u32 process; s32 descriptor; u64 mode; char name[{NAME_BYTES}]; }};
struct transfer {{ struct end from, to; }};
struct count {{ u64 reads, read, writes, written, errors; }};
INLINE u64 file_of(u32 descriptor)
{{
    u64 table = rv_word(rv_word(rv_task() + AT_task_struct_files) + AT_files_struct_fdt);
    if (descriptor >= rv_half(table + AT_fdtable_max_fds)) // behind its end lie other processes' files
        return 0;
    return rv_word(rv_word(table + AT_fdtable_fd) + 8ull * descriptor);
}}
INLINE void describe(struct end *end, s32 descriptor)
{{
    end->process = rv_ids() >> 32;
    end->descriptor = descriptor;
    u64 file = descriptor == -1 ? 0 : file_of(descriptor);
    if (!file)
        return;
    u64 entry = rv_word(file + AT_file_f_path + AT_path_dentry);
    end->mode = rv_half(rv_word(file + AT_file_f_inode) + AT_inode_i_mode) & {0o170000};
    rv_read_kernel_text(end->name, sizeof end->name, rv_word(entry + AT_dentry_d_name + AT_qstr_name));
}}
INLINE void enter(u64 *arguments)
{{
    u32 thread = rv_ids();
    s32 from = -1, to = -1;
    if (!rv_is_observed(thread) || !rv_is_time())
        return;
    if ({_is_one_of(_READS)}) from = rv_half(arguments[0] + AT_ARGUMENT_0);
    else if ({_is_one_of(_WRITES)}) to = rv_half(arguments[0] + AT_ARGUMENT_0);
{_both()}    else return;
    struct transfer transfer = {{}};
    describe(&transfer.from, from);
    describe(&transfer.to, to);
    if (rv_update(PENDING, &thread, &transfer, 0))
        rv_lose();
}}
INLINE struct count *find(struct end *end, u64 result)
{{
    struct count none = {{}};
    if (result == -{errno.EBADF}ull) {{
        end->mode = 0;
        __builtin_memset(end->name, 0, sizeof end->name);
    }}
    return end->descriptor == -1 ? 0 : rv_entry(end, &none);
}}
INLINE void leave(u64 *arguments)
{{
    u32 thread = rv_ids();
    struct transfer *pending = rv_lookup(PENDING, &thread);
    if (!pending)
        return;
    struct transfer transfer = *pending;
    u64 size = arguments[1] >= -4095ull ? 0 : arguments[1], failed = arguments[1] >= -4095ull;
    rv_delete(PENDING, &thread);
    if (!rv_is_time())
        return;
    struct count *count = find(&transfer.from, arguments[1]);
    if (count) {{
        count->reads++;
        count->read += size;
        count->errors += failed;
    }}
    if ((count = find(&transfer.to, arguments[1]))) {{
        count->writes++;
        count->written += size;
        count->errors += failed;
    }}
}}
"""
_KEY: Final = struct.Struct(f"<IiQ{NAME_BYTES}s")
_COUNT: Final = struct.Struct("<5Q")
_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "link",
}


def _rows(entries: Iterable[Entry]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for key, values in entries:
        process, descriptor, mode, name = _KEY.unpack(key)
        counts = [_COUNT.unpack(value) for value in values]
        reads, read, writes, written, errors = (sum(count[index] for count in counts) for index in range(5))
        kind = _TYPES.get(mode, "other" if name.strip(b"\0") else "none")
        rows.append((process, descriptor, kind, text_of(name), reads, read, writes, written, errors))
    return sorted(rows, key=lambda row: (-int(row[5]) - int(row[7]), -int(row[4]) - int(row[6]), row[:4]))


TRANSFERS: Final = ObservationProgram(
    "io",
    _BODY,
    (Hook("rv_at_enter", "sys_enter"), Hook("rv_at_leave", "sys_exit")),
    _KEY.size,
    _COUNT,
    pending_bytes=2 * _KEY.size,
    entries=8192,
    columns=(
        Column("process", "id"),
        Column("descriptor", "id"),
        Column("type", "text"),
        Column("name", "text"),
        Column("reads", "count"),
        Column("read_bytes", "bytes"),
        Column("writes", "count"),
        Column("written_bytes", "bytes"),
        Column("errors", "count"),
    ),
    rows=_rows,
)
"""The observation ``io``."""
