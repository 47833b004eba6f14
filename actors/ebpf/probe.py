"""Can this machine run record programs in its kernel? Found by trying, in a few milliseconds."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Final

from runvisor.actors.ebpf import bcc_package, bpf, btf
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import Probe

_NAME: Final = "ebpf"
_JIT: Final = Path("/proc/sys/net/core/bpf_jit_enable")
_COMMAND_LINE: Final = Path("/proc/cmdline")
_ITERATOR_TEXT: Final = b"\0bpf_iter_num_new\0"


_MAY_GOTO_TRIAL: Final = b"".join(
    struct.pack("<BBhi", *fields) for fields in ((0xB7, 0, 0, 0), (0xE5, 0, 1, 0), (0x05, 0, -2, 0), (0x95, 0, 0, 0))
)
"""``r0 = 0; while (may_goto) ; return r0``: loads where the kernel has may_goto."""


def has_may_goto() -> bool:
    """Find out by trying whether this kernel has the may_goto instruction."""
    try:
        os.close(bpf.load_socket_filter(_MAY_GOTO_TRIAL))
    except OSError:
        return False
    return True


def jit_is_on() -> bool:
    """Whether the kernel compiles programs to machine code."""
    try:
        return _JIT.read_text().strip() in ("1", "2")
    except OSError:
        return False


def mitigations_are_off() -> bool:
    """Whether the kernel was booted without CPU mitigations; the verifier then adds none either."""
    try:
        words = _COMMAND_LINE.read_text().split()
    except OSError:
        return False
    settings = [word.removeprefix("mitigations=") for word in words if word.startswith("mitigations=")]
    return bool(settings) and settings[-1].partition(";")[0].split(",")[0] == "off"


def probe_ebpf() -> Probe:
    """Say whether record programs can run here, and if not, what is missing and how to get it."""

    def missing(detail: str, remedy: str) -> Probe:
        return Probe(_NAME, False, detail, remedy)

    jail = probe_jail(_NAME)
    if not jail.available:
        return jail
    if bcc_package.folder() is None:
        return missing("there is no bcc, the compiler", bcc_package.REMEDY)
    try:
        os.close(bpf.create_array(8))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return missing(
                "bpf(2) is refused",
                "give CAP_BPF and CAP_PERFMON, and let the container's seccomp profile pass bpf "
                "(docker: --privileged, or --cap-add BPF --cap-add PERFMON)",
            )
        return missing(f"bpf(2) does not work: {error}", "boot a kernel with CONFIG_BPF_SYSCALL")
    if has_may_goto():
        loop = "may_goto loops"
    elif not btf.VMLINUX.exists():
        return missing(
            f"the kernel has no may_goto, and no type information at {btf.VMLINUX}",
            "boot Linux 6.9 or later, or 6.4 or later with CONFIG_DEBUG_INFO_BTF",
        )
    elif _ITERATOR_TEXT not in btf.VMLINUX.read_bytes():
        return missing("the kernel has neither may_goto nor bpf_iter_num", "boot Linux 6.9 or later")
    else:
        loop = "bpf_iter_num loops"
    jit = "JIT on" if jit_is_on() else "JIT off (slow; sysctl net.core.bpf_jit_enable=1)"
    return Probe(_NAME, True, f"bcc {bcc_package.version()}, {loop}, {jit}; jail: {jail.detail}")
