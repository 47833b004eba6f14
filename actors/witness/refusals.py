"""What a seccomp filter says of a system call, as C: translated from the very filter that sandboxes load.

A filter that answers with an errno keeps the call from being carried out. Whether one
of ours did is seen at the call's end, for its number and arguments are still there:
the filter decides by nothing else.

Source: Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/seccomp.h
(``struct seccomp_data``), Documentation/networking/filter.rst (classic BPF),
arch/x86/include/asm/ptrace.h (``struct pt_regs``).
"""

from __future__ import annotations

import struct
from typing import Final

_INSTRUCTION: Final = struct.Struct("<HBBI")
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_ARCH: Final = 0xC000003E
"""``AUDIT_ARCH_X86_64``: of every call that ends, as our filters kill for any other."""
_ARGUMENTS: Final = (14, 13, 12, 7, 9, 8)
"""Words of pt_regs with the arguments: rdi, rsi, rdx, r10, r8, r9."""
_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_COMPARISONS: Final = {0x15: "==", 0x25: ">", 0x35: ">=", 0x45: "&"}


def decision(name: str, code: bytes) -> str:
    """Return a function in C that gives the value which a filter returns.

    Args:
        name: Of the function: ``u32 name(u32 number, u64 *regs)``, to be inlined.
        code: The filter, in classic BPF.

    Raises:
        ValueError: It is not one that libseccomp makes of an allow-list.

    Example:
        >>> refuse_reboot = bytes.fromhex("2000000000000000 15000001a9000000 0600000001000500 060000000000ff7f")
        >>> print(decision("say", refuse_reboot))
        static inline __attribute__((always_inline)) u32 say(u32 number, u64 *regs)
        {
            u32 word = 0;
            word = number;
            if (word == 169) goto at_2; else goto at_3;
            at_2:
            return 327681;
            at_3:
            return 2147418112;
        }
    """
    steps = list(_INSTRUCTION.iter_unpack(code))
    lines: list[str] = []
    targets: set[int] = set()
    for at, (operation, if_so, if_not, value) in enumerate(steps):
        if at in targets:
            lines.append(f"at_{at}:")
        if operation == _LOAD:
            lines.append(f"word = {_word(value)};")
        elif operation == _AND:
            lines.append(f"word &= {value};")
        elif operation == _RETURN:
            lines.append(f"return {value};")
        elif operation == _JUMP:
            targets.add(at + 1 + value)
            lines.append(f"goto at_{at + 1 + value};")
        elif operation in _COMPARISONS:
            yes, no = at + 1 + if_so, at + 1 + if_not
            targets |= {yes, no}
            lines.append(f"if (word {_COMPARISONS[operation]} {value}) goto at_{yes}; else goto at_{no};")
        else:
            raise ValueError(f"instruction {at} of the filter is {operation:#x}, which no allow-list of ours has")
    head = f"static inline __attribute__((always_inline)) u32 {name}(u32 number, u64 *regs)"
    return "\n".join([head, "{", *(f"    {line}" for line in ["u32 word = 0;", *lines]), "}"])


def _word(offset: int) -> str:
    """Return a word of ``struct seccomp_data``."""
    if offset == _NUMBER_AT:
        return "number"
    if offset == _ARCH_AT:
        return str(_ARCH)
    argument, half = divmod(offset - _ARGUMENTS_AT, 8)
    if not 0 <= argument < len(_ARGUMENTS) or half not in (0, 4):
        raise ValueError(f"the filter looks at byte {offset} of a call")
    return f"(u32)(regs[{_ARGUMENTS[argument]}] >> {half * 8})"
