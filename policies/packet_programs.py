"""A packet program as its text says: its kind, its state, and the C text around the author's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.packets import Kind
from runvisor.policies.record_text import Dialect, read
from runvisor.policies.records import LAYOUT_FILE, MAX_STATE_BYTES, PROGRAM_FILE
from runvisor.policies.struct_values import StructValues, first_state
from runvisor.policies.structs import Struct
from runvisor.policies.values import Value

_ENTRIES: Final[Mapping[Kind, str]] = {"filter": "on_packet", "xdp": "on_xdp"}
_PARAMETERS: Final[Mapping[Kind, str]] = {
    "filter": "struct packet *p, struct state *s",
    "xdp": "void *data, void *data_end, struct state *s",
}
_DIALECT: Final = Dialect("packet", ("state",), {_ENTRIES[kind]: text for kind, text in _PARAMETERS.items()})


@dataclass(frozen=True, slots=True)
class PacketProgram:
    """A program with the layout of its state."""

    source: str
    kind: Kind
    state: Struct | None
    """None: the program keeps none; its pointer leads nowhere."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, zero without one."""
        return self.state.size if self.state else 0

    @property
    def declarations(self) -> str:
        """C text to put first: the state as an incomplete type, the author's function."""
        return f"struct state;\nstatic int {_ENTRIES[self.kind]}({_PARAMETERS[self.kind]});\n"

    @property
    def body(self) -> str:
        """C text to put last: the program with its own line numbers, and the layout's checks."""
        checks = self.state.assertions() if self.state else ""
        return f'#line 1 "{PROGRAM_FILE}"\n{self.source}\n#line 1 "{LAYOUT_FILE}"\n{checks}'

    def initial_state(self, fields: Mapping[str, Any]) -> bytes:
        """Return the state's bytes before the first packet; fields left out are zero.

        Raises:
            InvalidTask: A name that the state does not have, or a value that does not fit.
        """
        return first_state(StructValues(self.state) if self.state else None, fields)

    def state_value(self, state: bytes) -> Value:
        """Return the fields of the state behind the last packet."""
        return StructValues(self.state).decode(state) if self.state else {}


def parse_program(source: str) -> PacketProgram:
    """Read a program.

    Args:
        source: The author's C text.

    Raises:
        GuestSyntaxError: The text holds what the language does not have; ``where`` is ``line:column``.

    Example:
        >>> program = parse_program("struct state { u64 n; }; int on_packet(struct packet *p, struct state *s) { }")
        >>> program.kind, program.state_bytes
        ('filter', 8)
    """
    structs, entry = read(source, _DIALECT)
    state = structs.get("state")
    if state is not None and state.size > MAX_STATE_BYTES:
        raise GuestSyntaxError(f"a state of {state.size} bytes is larger than {MAX_STATE_BYTES}", "struct state")
    return PacketProgram(source, next(kind for kind in _ENTRIES if _ENTRIES[kind] == entry), state)
