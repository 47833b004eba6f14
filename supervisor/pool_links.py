"""A handle's ways to pools: found through the supervisor, then direct."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError

from runvisor.actors.channel.base import Channel, OnEvent
from runvisor.actors.channel.frames import Message
from runvisor.actors.channel.load_page import LoadReading
from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.channel.unix import UnixChannel
from runvisor.actors.runtime import Load
from runvisor.policies.errors import RunvisorError, WorkerCrashed
from runvisor.supervisor.execution import Call
from runvisor.supervisor.load_view import LoadView


def ask(reference: Any) -> Mapping[str, Any]:
    """Wait for the supervisor's answer; its own errors come out as they are.

    Raises:
        WorkerCrashed: It does not answer.
    """
    try:
        answer: Mapping[str, Any] = ray.get(reference)
    except RunvisorError as error:
        raise RunvisorError.from_wire(error.to_wire()) from None  # without Ray's wrapping
    except RayError as error:
        raise WorkerCrashed(f"the supervisor does not answer: {error}", "supervisor") from None
    return answer


def unrefused(answer: Message) -> Message:
    """Return a pool's answer, or raise the error that it is."""
    if answer.get("op") == "error":
        raise RunvisorError.from_wire(answer["error"])
    return answer


class PoolLink:
    """A pool as a handle knows it: a `Channel` to it that keeps its load in view.

    Args:
        endpoint: What the supervisor said of it: socket, nonce, actor, load.
        channel: The way to it.
        reading: Shows its load at any time, if it is on this node.
    """

    def __init__(self, endpoint: Mapping[str, Any], channel: Channel, reading: LoadReading | None = None) -> None:
        self.endpoint: Final = endpoint
        self.channel: Final = channel
        """For words that are no work: they wait for no place."""
        load = Load.from_wire(endpoint["load"]) or Load()
        self._view = LoadView(load, time.monotonic(), reading.now if reading else None)

    @classmethod
    def to(cls, endpoint: Mapping[str, Any]) -> PoolLink:
        """Link to a pool by the fastest channel that reaches it: its socket on this node, else Ray."""
        try:
            channel = UnixChannel(endpoint["socket"], endpoint["nonce"])
        except OSError:
            return cls(endpoint, RayChannel(endpoint["actor"]))
        return cls(endpoint, channel, LoadReading.beside(Path(endpoint["socket"])))

    def load(self) -> Load:
        """Return how busy it should be now."""
        return self._view.now(time.monotonic())

    def request(self, message: Message, on_event: OnEvent | None = None, shared: Sequence[int] = ()) -> Message:
        """See `Channel.request`; a task counts as work of the pool's until it is answered.

        Args:
            message: The request; a task's ``expected_s`` is what one of its executions should take.
            on_event: As there.
            shared: As there.
        """
        match message["op"]:
            case "execute":
                sending: AbstractContextManager[None] = self._view.sending(message["expected_s"])
            case "execute batch":
                sending = self._view.sending(message["expected_s"] * len(message["inputs"]))
            case _:  # what a session runs has an instance of its own
                sending = nullcontext()
        with sending:
            answer = self.channel.request(message, on_event, shared)
        load = Load.from_wire(answer.get("load"))
        if load is not None:
            self._view.note(load, time.monotonic())
        return answer

    def close(self) -> None:
        """See `Channel.close`."""
        self.channel.close()


class PoolLinks:
    """The pools that a handle has met, one for each runtime. Safe to use from many threads.

    Args:
        supervisor: The supervisor actor.
    """

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor
        self._links: dict[str, PoolLink] = {}
        self._lock = threading.Lock()

    def to(self, runtime: str) -> PoolLink:
        """Return the link to a runtime's pool, asking the supervisor for it the first time.

        Raises:
            SpawnFailed: The runtime cannot run here.
        """
        link = self._links.get(runtime)
        if link is not None:
            return link
        return self._keep(runtime, ask(self._supervisor.pool.remote(runtime)))

    def successor(self, runtime: str, dead: PoolLink) -> PoolLink:
        """Return the link to the pool that took over from one that died."""
        return self._keep(runtime, ask(self._supervisor.replace.remote(runtime, dead.endpoint["nonce"])))

    def send(
        self,
        runtime: str,
        link: PoolLink,
        request: Message,
        call: Call,
        *,
        on_event: OnEvent | None = None,
        shared: Sequence[int] = (),
        on_crash: Callable[[WorkerCrashed], object] | None = None,
    ) -> Message:
        """Send a request; once more, to the spare, if the pool died before the task had started.

        Args:
            runtime: Whose pool it is.
            link: The way to it.
            request: With the ``authority`` and, if it can be called off, its name as ``execution``.
            call: How the caller means to call it off.
            on_event: See `Channel.request`.
            shared: See `Channel.request`.
            on_crash: Called when the pool has died.

        Raises:
            Cancelled: It was called off before it was sent.
            WorkerCrashed: The pool died after the start, or twice.
        """
        word = {"op": "cancel", "execution": request.get("execution"), "authority": request["authority"]}

        def send(link: PoolLink) -> Message:
            call.sending(lambda: link.channel.request(word))
            return link.request(request, on_event, shared)

        try:
            return send(link)
        except WorkerCrashed as error:
            if on_crash is not None:
                on_crash(error)
            successor = self.successor(runtime, link)
            if error.details.get("started"):
                raise
            return send(successor)

    def runtimes(self) -> set[str]:
        """Return the runtimes whose pools it has met."""
        return set(self._links)

    def loads(self, runtimes: Iterable[str]) -> dict[str, Load]:
        """Return how busy the pools of these runtimes should be now, as far as they have been met."""
        return {runtime: link.load() for runtime in runtimes if (link := self._links.get(runtime)) is not None}

    def close(self) -> None:
        """Close the channels; closing twice is fine."""
        with self._lock:
            links = list(self._links.values())
            self._links.clear()
        for link in links:
            link.close()

    def _keep(self, runtime: str, endpoint: Mapping[str, Any]) -> PoolLink:
        with self._lock:
            known = self._links.get(runtime)
            if known is not None and known.endpoint["nonce"] == endpoint["nonce"]:
                return known
            if known is not None:
                known.close()
            link = PoolLink.to(endpoint)
            self._links[runtime] = link
            return link
