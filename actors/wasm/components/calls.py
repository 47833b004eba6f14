"""Inside the engine process: one run in a fresh store, with its limits, its surroundings and its reply.

The request has profile, timeout_s, memory_bytes, output_bytes, is_deterministic;
fuel where instructions are counted, follow where output is sent on as it comes.
The reply has ``value`` or ``error``, and ``stdout``, ``stderr``, ``cpu_s`` and
``instructions``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.components.failures import explain_failure
from runvisor.actors.wasm.components.world import Surroundings, Worlds
from runvisor.actors.wasm.fastpath import Stopped, Store
from runvisor.actors.wasm.live_output import LiveOutput
from runvisor.actors.wasm.profiles import MAX_MEMORY_BYTES, PROFILES
from runvisor.actors.wasm.wasi.deterministic import Deterministic
from runvisor.policies import errors

if TYPE_CHECKING:
    from runvisor.actors.wasm.engine import EngineLane


def answer(
    lane: EngineLane,
    message: Message,
    worlds: Worlds,
    work: Callable[[Store], bytes],
    memories: int | None = None,
    ready: Store | None = None,
) -> Message:
    """Do some work with a fresh store, within the limits of a request.

    Args:
        lane: Where it runs.
        message: The request.
        worlds: Those of the host functions that it may call.
        work: What to do; returns a packed value.
        memories: Most linear memories; each may be as large as the request says. None is the profile's.
        ready: A store that was made ahead, to be used and closed; None is a new one.
    """
    profile = PROFILES[message["profile"]]
    if ready is None:
        store = lane.store(profile.name)
    else:
        store = ready
        lane.spend(store)
    fuel: int | None = message.get("fuel")
    memory_bytes = min(message["memory_bytes"], MAX_MEMORY_BYTES)
    limits = {"instances": profile.instances, "memories": memories or profile.memories}
    store.limit(memory_bytes, profile.table_elements, profile.instances, fuel, **limits)
    deadlines = lane.process.deadlines
    surroundings = Surroundings(store.token, deadlines, message["output_bytes"])
    if message["is_deterministic"]:
        surroundings.ambient = Deterministic()
    live = LiveOutput(surroundings, lane.emit, lane.process.flusher) if message.get("follow") else None
    reply: Message = {}
    began = time.thread_time()
    deadlines.begin(store.token, message["timeout_s"])
    lane.begin(message, store.token)
    worlds.enter(surroundings)
    try:
        reply["value"] = work(store)
    except Stopped as stopped:
        reply["error"] = explain_failure(stopped, surroundings, message["timeout_s"], fuel).to_wire()
    except errors.RunvisorError as error:
        reply["error"] = error.to_wire()
    finally:
        worlds.leave()
        deadlines.end(store.token)
    out, err = live.end() if live is not None else (0, 0)  # what the host has had already
    reply["stdout"], reply["stderr"] = bytes(surroundings.stdout[out:]), bytes(surroundings.stderr[err:])
    if fuel is not None:
        reply["instructions"] = fuel - store.fuel_left()
    reply["cpu_s"] = time.thread_time() - began
    return reply
