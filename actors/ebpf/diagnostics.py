"""What a compiler or the verifier said, as one clear sentence with a place."""

from __future__ import annotations

import re
from typing import Final

from runvisor.actors.ebpf.line_table import LineTable
from runvisor.policies.errors import EngineRefused, GuestSyntaxError
from runvisor.policies.records import LAYOUT_FILE, PROGRAM_FILE

_LOG_CHARACTERS: Final = 2000
_WHAT_CHARACTERS: Final = 300
_MESSAGE: Final = re.compile(r"^(\S+):(\d+):(\d+): (?:fatal )?error: (.*)$", re.MULTILINE)
_BACKEND: Final = re.compile(r"^error: (\S+?):(\d+):(\d+): in function .*?\): (.*)$", re.MULTILINE)
_DIVISION: Final = re.compile(r"^Error at line (\d+): Unsupport signed division", re.MULTILINE)

_BACKEND_SAYS: Final = (
    (
        "stack limit",
        "the program needs more than the 512 bytes of local variables that the kernel gives",
        "keep arrays in struct state",
    ),
    (
        "built-in function",
        "the program needs arithmetic that the kernel does not have",
        "use integers of up to 64 bits",
    ),
)

_ANY_TARGET: Final = "its input or the state"
_OUT_OF_BOUNDS: Final = f"the program may read or write beyond {_ANY_TARGET}"
_TARGETS: Final = {"records": "the record", "state": "the state", "collected": "the output"}
_AT_INSTRUCTION: Final = re.compile(r"^(\d+): \([0-9a-f]{2}\)|\bat insn (\d+)")
_STORE: Final = re.compile(r"\) (lock )?\*\(")
_LOAD: Final = re.compile(r"= \*\(")
_REGISTER: Final = re.compile(r"R(\d+) ")

_VERIFIER_REFUSES: Final = (
    (
        r"invalid access to packet",
        "the program reads or writes the packet without having shown that it is so long",
        "compare with data_end right before, and return if that is less",
    ),
    (
        r"unbounded memory access|outside of the allowed memory range|invalid access to map value|"
        r"(min|max) value is|value is outside",
        _OUT_OF_BOUNDS,
        "check an index against the array's size, or mask it, right before it is used",
    ),
    (
        r"invalid mem access|inv(alid)? (read|write) from|dereference of modified",
        "the program uses a pointer that does not lead into its input, the state or a local variable",
        "use only the pointers that the function is given",
    ),
    (
        r"leaks addr|leak pointer|pointer comparison prohibited|partial copy of pointer",
        "the program would let out an address of the kernel",
        "store values, not pointers",
    ),
    (
        r"pointer arithmetic|operator .* on pointer|math between .* pointer|variable stack access|be out of bounds",
        "the program computes an address in a way that cannot be proved safe",
        "check an index against the array's size, or mask it, right before it is used",
    ),
    (
        r"invalid (indirect )?read from stack|!read_ok",
        "the program reads a local variable before it is set",
        "give it a first value",
    ),
    (r"misaligned", "the program reads or writes at an address that is not aligned", "use whole fields"),
)
"""Pattern, fact and remedy: what is wrong with the program, whatever runs it."""
_VERIFIER_GIVES_UP: Final = (
    (r"infinite loop|back-edge|loop detected", "the program has a loop that may not end", "give it a constant bound"),
    (
        r"too many instructions|too large|too complex",
        "the program has too many paths to be checked",
        "make it shorter, or unroll less",
    ),
    (r"combined stack size|stack depth", "the program needs more stack than the kernel gives", "keep less at a time"),
)
"""What is beyond the kernel only."""


def compiler_error(said: str, *, crashed: bool) -> GuestSyntaxError:
    """Return the error for what the compiler wrote to standard error; `EngineRefused` if only the kernel lacks it.

    Args:
        said: Its messages; from a process that read hostile text.
        crashed: The process died of them.

    Example:
        >>> print(compiler_error("program.c:3:9: error: expected expression", crashed=False))
        expected expression (at 3:9)
    """
    said = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in said)
    details = {"log": said[:_LOG_CHARACTERS]}
    if match := _DIVISION.search(said):
        return EngineRefused(
            "signed division is not among the kernel's instructions",
            f"{match[1]}:1",
            "divide unsigned integers",
            details,
        )
    for match in _MESSAGE.finditer(said):
        file, what = match[1], match[4][:_WHAT_CHARACTERS]
        if file.endswith(PROGRAM_FILE):
            return GuestSyntaxError(what, f"{match[2]}:{match[3]}", "", details)
        if file.endswith(LAYOUT_FILE):
            return GuestSyntaxError(
                "struct record or struct state is not laid out as its text says",
                "1:1",
                "declare it without macros, packing and #if",
                details,
            )
    if match := _BACKEND.search(said):
        where = f"{match[2]}:{match[3]}" if match[1].endswith(PROGRAM_FILE) else "1:1"
        for mark, what, remedy in _BACKEND_SAYS:
            if mark in match[4]:
                return EngineRefused(what, where, remedy, details)
        return GuestSyntaxError(match[4][:_WHAT_CHARACTERS], where, "", details)
    last = next((line for line in said.splitlines() if line.startswith("LLVM ERROR")), "")
    what = "the compiler gave up on the program" if crashed else "the program does not compile"
    return GuestSyntaxError(what + (f": {last[:_WHAT_CHARACTERS]}" if last else ""), "1:1", "", details)


TOO_MANY_PATHS: Final = "BPF program is too large"
"""What the verifier says of a program that it gives up on."""


def verifier_error(log: str, lines: LineTable | None = None) -> GuestSyntaxError:
    """Return the error for the verifier's log of a refused program; `EngineRefused` if it only gave up.

    Args:
        log: What the verifier said; its last lines give the reason.
        lines: Where instructions came from, for `where` and the sentence.

    Example:
        >>> print(verifier_error("R2 unbounded memory access, make sure to bounds check any such access"))
        the program may read or write beyond its input or the state (at verifier); check an index against \
the array's size, or mask it, right before it is used
    """
    said = [line for line in log.splitlines() if line.strip()]
    details = {"log": "\n".join(said[-6:])[-_LOG_CHARACTERS:]}
    reasons = [line for line in said if not line.startswith("processed ")]
    place = _place(said, lines)
    where = place or "verifier"
    for line in reversed(reasons[-4:]):
        for kind, table in ((EngineRefused, _VERIFIER_GIVES_UP), (GuestSyntaxError, _VERIFIER_REFUSES)):
            for pattern, what, remedy in table:
                if re.search(pattern, line):
                    return kind(_access(what, said, line, place), where, remedy, details)
    last = reasons[-1].strip()[:_WHAT_CHARACTERS] if reasons else "it gave no reason"
    return GuestSyntaxError(f"the kernel's verifier refuses the program: {last}", where, "", details)


def _place(said: list[str], lines: LineTable | None) -> str | None:
    """Return where the instruction came from that the verifier looked at last."""
    for line in reversed(said):
        if found := _AT_INSTRUCTION.search(line):
            return lines.place(int(found[1] or found[2])) if lines else None
    return None


def _access(what: str, said: list[str], reason: str, place: str | None) -> str:
    """Say of an access out of bounds what it does, on which line and to what, as far as that is known."""
    if what != _OUT_OF_BOUNDS:
        return what
    instruction = next((line for line in reversed(said) if _AT_INSTRUCTION.match(line)), "")
    does = "write" if _STORE.search(instruction) else "read" if _LOAD.search(instruction) else "read or write"
    register = _REGISTER.match(reason)
    maps = [found for line in said if (found := _map_in(line, register[1] if register else r"\d+"))]
    target = _TARGETS.get(maps[-1], _ANY_TARGET) if maps else _ANY_TARGET
    subject = f"the access on line {place.partition(':')[0]}" if place else "the program"
    return f"{subject} may {does} beyond {target}"


def _map_in(line: str, register: str) -> str:
    found = re.findall(rf"\bR{register}(?:_\w+)?=map_value\(map=rv_(\w+)", line)
    return str(found[-1]) if found else ""
