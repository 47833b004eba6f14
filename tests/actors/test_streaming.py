"""Output on its way to a client: in order, never waited for, never lost, and in bounded numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors import streaming
from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message
from runvisor.actors.streaming import OutputStream, Progress


class Client:
    """Takes an answer when its plan says so; the plan repeats."""

    def __init__(self, plan: list[bool]) -> None:
        self.messages: list[Message] = []
        self.made = 0
        self._plan = plan
        self._asked = 0

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def offer(self, make: Callable[[], Message]) -> bool:
        takes = self._plan[self._asked % len(self._plan)]
        self._asked += 1
        if takes:
            self.made += 1
            self.messages.append(make())
        return takes

    def cancel_when_gone(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        return nullcontext()

    def text(self, stream: int) -> str:
        return "".join(message["data"] for message in self.messages if message["stream"] == stream)


pieces = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=20)), max_size=40)


@given(pieces, st.lists(st.booleans(), min_size=1, max_size=5))
def test_every_byte_arrives_once_and_in_order_whatever_the_client_takes(
    printed: list[tuple[int, bytes]], plan: list[bool]
) -> None:
    client = Client(plan)
    stream = OutputStream(client)
    for number, data in printed:
        stream.add(number, data)
    stream.finish()
    for number in (1, 2):
        whole = b"".join(data for which, data in printed if which == number)
        assert client.text(number) == whole.decode(errors="replace")


def test_a_character_cut_in_two_arrives_whole() -> None:
    client = Client([True])
    stream = OutputStream(client)
    for byte in "é→".encode():
        stream.add(1, bytes([byte]))
    stream.finish()
    assert [message["data"] for message in client.messages] == ["é", "→"]


def test_the_number_of_events_is_bounded_and_the_rest_comes_at_the_end() -> None:
    client = Client([True])
    stream = OutputStream(client)
    for _ in range(streaming.MAX_EVENTS + 100):
        stream.add(1, b"x")
    assert len(client.messages) == streaming.MAX_EVENTS
    stream.finish()
    assert client.text(1) == "x" * (streaming.MAX_EVENTS + 100)


def test_a_client_that_takes_nothing_costs_no_work_per_piece() -> None:
    client = Client([False])
    stream = OutputStream(client)
    for _ in range(1000):
        stream.add(1, b"x")
    assert client.made == 0


def test_a_client_that_is_gone_calls_its_execution_off() -> None:
    class Gone(Client):
        def offer(self, make: Callable[[], Message]) -> bool:
            raise BrokenPipeError

        def send(self, message: Message) -> None:
            raise BrokenPipeError

    with Cancellation() as cancellation:
        watch = Progress(Gone([True]), streams=True).watch(cancellation)
        watch.started()
        watch.output(1, b"x")
        assert cancellation.cancelled
