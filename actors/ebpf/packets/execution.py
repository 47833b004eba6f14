"""One execution of a packet program: from its task to its value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.compiler import BODY_PATH, Compiler
from runvisor.actors.ebpf.packets.agreement import WINDOW_BYTES
from runvisor.actors.ebpf.packets.harness import main_text
from runvisor.actors.ebpf.packets.work import PacketArtifact, PacketWork
from runvisor.policies.bytecode import MAX_INSTRUCTIONS, Loop, scan
from runvisor.policies.captures import check_packet
from runvisor.policies.errors import (
    CapabilityDenied,
    InvalidTask,
    MemoryLimitExceeded,
    OutputLimitExceeded,
)
from runvisor.policies.packet_programs import PacketProgram
from runvisor.policies.packets import PACKET_BYTES, Kind, PacketInputs, filter_value, xdp_value
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Value, pack

VARIANT: Final = "packet"
_MAPS: Final = 3
_HELPERS: Final[Mapping[Kind, tuple[int, ...]]] = {"filter": (), "xdp": (65, 189, 190)}
"""What the harness calls; see `runvisor.actors.ebpf.packets.harness`."""
_FIELDS_BYTES: Final = 128
"""About what the counts take in a value."""


def check_trust(kind: Kind, trust: Trust) -> None:
    """Refuse an XDP program of code that is not trusted.

    Raises:
        CapabilityDenied: Its executor would hold CAP_NET_ADMIN for code of less trust.
    """
    if kind == "xdp" and trust < Trust.TRUSTED:
        raise CapabilityDenied(
            f"an XDP program takes trusted code, not {trust.label}: the kernel loads it only with CAP_NET_ADMIN",
            "trust",
            "run it as trusted, or write it as a socket filter, on_packet",
        )


def compile_packets(
    compiler: Compiler, program: PacketProgram, loop: Loop, grant: Grant, on_started: Callable[[], None]
) -> PacketArtifact:
    """Compile and scan a packet program.

    Args:
        compiler: Compiles in a jailed child.
        program: The parsed program.
        loop: How the harness loops on this kernel.
        grant: Its trust bounds the program, its time the compiling.
        on_started: Called once, when a child is about to read the text.

    Raises:
        GuestSyntaxError: It does not compile, or loops.
        CapabilityDenied: It calls the kernel.
        RunvisorError: See `Compiler.instructions`.
    """
    check = functools.partial(
        scan, loop=loop, max_instructions=MAX_INSTRUCTIONS[grant.trust], maps=_MAPS, helpers=_HELPERS[program.kind]
    )
    main, timeout_s = main_text(program, loop, BODY_PATH), grant.permissions.timeout_s
    code, cost = compiler.checked(main, program.body, check, timeout_s, on_started)
    return PacketArtifact(code, cost, program.kind, program.state_bytes)


class PacketExecution:
    """What is checked before a packet program runs, and what becomes of its answer.

    Args:
        program: The parsed program.
        inputs: The checked inputs.
        grant: The execution's grant.

    Raises:
        InvalidTask: The state does not fit the program, or a filter is asked what it changed.
        CapabilityDenied: The program takes more trust, or cannot do what is asked.
        MemoryLimitExceeded: State and window are larger than the grant allows.
    """

    def __init__(self, program: PacketProgram, inputs: PacketInputs, grant: Grant) -> None:
        check_trust(program.kind, grant.trust)
        if inputs.changed and program.kind == "filter":
            raise InvalidTask("a socket filter changes no packets", "inputs['changed']", "leave it out")
        self._program = program
        self._inputs = inputs
        self._output_bytes = grant.permissions.output_bytes
        self._state = program.initial_state(inputs.state) if inputs.state else b""
        self._work: PacketWork
        needed, limit = WINDOW_BYTES + program.state_bytes, grant.permissions.memory_bytes
        if needed > limit:
            raise MemoryLimitExceeded(
                f"the window over the capture and the state take {needed} bytes, more than {limit}",
                "memory_bytes",
                "raise memory_bytes, or keep less state",
            )

    def work(self, artifact: PacketArtifact) -> PacketWork:
        """Return what an executor is to do."""
        self._work = PacketWork(artifact, self._inputs, self._state, self._output_bytes)
        return self._work

    def value(self, answer: Message) -> tuple[dict[str, Value], int]:
        """Return the value that a ``done`` answer makes, and about how many bytes it has.

        Raises:
            InvalidTask: A packet is too short or too long, or the capture ends within one; names it.
            OutputLimitExceeded: The value is larger than the grant allows.
        """
        work, capture = self._work, self._inputs.capture
        if work.at < len(capture.data):
            check_packet(capture, work.packets, work.at, *PACKET_BYTES[self._program.kind])  # it raises
        verdicts = work.verdicts
        value = filter_value(verdicts) if self._program.kind == "filter" else xdp_value(verdicts)
        value["state"] = self._program.state_value(answer["state"])
        if self._inputs.per_packet:
            value["per_packet"] = verdicts
        if self._inputs.changed:
            value["changed"] = [{"packet": number, "bytes": packet} for number, packet in work.changed]
        if work.changed_bytes > self._output_bytes or len(pack(value)) > self._output_bytes:
            raise OutputLimitExceeded(
                f"the value takes more than {self._output_bytes} bytes",
                "output_bytes",
                "raise output_bytes, or ask for less",
            )
        size = _FIELDS_BYTES + len(answer["state"]) + work.changed_bytes
        return value, size + (verdicts.nbytes if self._inputs.per_packet else 0)
