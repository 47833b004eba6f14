"""Inside the jail: load the counting programs, attach them, hand out their descriptors, and wait.

The one process that holds CAP_BPF and CAP_PERFMON for it. It reads no guest's bytes,
and nothing but what its host sends.
"""

from __future__ import annotations

import os
from typing import Any

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.attach import RAW_TYPED, attach_typed_tracepoint
from runvisor.actors.ebpf.relocation import relocate
from runvisor.actors.witness.programs import PROGRAMS, SHARED, make_maps


def preload(options: dict[str, Any]) -> None:
    """Nothing heavy to import."""
    del options


def prepare(options: dict[str, Any]) -> None:
    """Nothing is left to prepare."""
    del options


def serve(channel: FrameSocket, prepared: None) -> None:
    """Attach what the host sends and hold it until the host is gone."""
    del prepared
    request = channel.receive()
    if request is None:
        return
    try:
        fds = _attach(request["instructions"], request["types"])
    except bpf.VerifierRefusal as error:
        channel.send({"op": "failed", "what": f"the kernel refuses a program: {error.log.strip()[-500:]}"})
        return
    except OSError as error:
        channel.send({"op": "failed", "what": str(error)})
        return
    channel.send({"op": "attached"}, fds)
    channel.receive()


def _attach(instructions: dict[str, bytes], types: dict[str, int]) -> list[int]:
    """Return the shared maps' descriptors, and then one for each attachment."""
    maps = make_maps()
    descriptors = {index: each.fd for index, each in maps.items()}
    links: list[int] = []
    for function, tracepoint in PROGRAMS.items():
        program = bpf.load_program(
            relocate(instructions[function], descriptors),
            bpf.ProgramType.TRACING,
            attach_type=RAW_TYPED,
            attach_btf_id=types[tracepoint],
            name=function.encode(),
        )
        links.append(attach_typed_tracepoint(program))
        os.close(program)
    return [*(maps[index].fd for index in SHARED), *links]
