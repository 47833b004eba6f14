"""Sessions as their owner uses them, through a real supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies import errors
from runvisor.policies.trust import Trust
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.execution import Output
from runvisor.supervisor.session import Session

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
COUNTERS = [("python", "n = 20", "n + 1"), ("javascript", "let n = 20", "n + 1")]


@pytest.mark.parametrize(("language", "first", "second"), COUNTERS)
def test_cells_share_their_state(supervisor: Supervisor, language: str, first: str, second: str) -> None:
    with supervisor.session(language) as session:
        assert session.run(first).ok
        result = session.run(second)
        assert (result.unwrap(), result.language) == (21, language)
        assert [cell.code for cell in session.history] == [first, second]


def test_inputs_output_and_labels_belong_to_a_cell(supervisor: Supervisor) -> None:
    seen: list[Output] = []
    with supervisor.session("python") as session:
        result = session.run("print(inputs['a'].sum()); 7", {"a": np.arange(4)}, on_output=seen.append, label="sum")
        assert result.unwrap() == 7
        assert "".join(output.text for output in seen) == result.stdout == "6\n"
        assert session.history[0].label == "sum"
        assert session.run("print('x')").stdout == "x\n"


def test_a_failing_cell_is_no_history_and_the_session_lives(supervisor: Supervisor) -> None:
    with supervisor.session("python") as session:
        session.run("n = 1")
        assert isinstance(session.run("1 / 0").error, errors.GuestException)
        assert session.run("n").value == 1
        assert len(session.history) == 2


def test_another_thread_can_interrupt_a_cell_and_none_can_run_a_second_meanwhile(supervisor: Supervisor) -> None:
    ready = threading.Event()
    with supervisor.session("python", permissions={"timeout_s": 60}) as session:
        assert session.interrupt() is False
        session.run("n = 1")
        ended: list[Any] = []

        def run() -> None:
            code = "n = 2\nprint('ready', flush=True)\nwhile True: pass"
            ended.append(session.run(code, on_output=lambda output: ready.set()))

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(20)
        with pytest.raises(errors.SessionBusy):
            session.run("1")
        assert session.interrupt() is True
        thread.join(20)
        assert isinstance(ended[0].error, errors.GuestInterrupted)
        assert session.run("n").value == 2


def test_a_caller_that_breaks_off_interrupts_its_cell_only(supervisor: Supervisor) -> None:
    def stop(output: Output) -> None:
        raise KeyboardInterrupt

    with supervisor.session("python", permissions={"timeout_s": 60}) as session:
        with pytest.raises(KeyboardInterrupt):
            session.run("n = 3\nprint('ready', flush=True)\nwhile True: pass", on_output=stop)
        for _ in range(200):  # the interrupted cell may take a moment to end
            try:
                assert session.run("n").value == 3
                break
            except errors.SessionBusy:
                threading.Event().wait(0.05)
        else:
            pytest.fail("the cell was not interrupted")


def test_a_cell_that_times_out_takes_the_session_and_the_next_call_says_why(supervisor: Supervisor) -> None:
    with supervisor.session("python") as session:
        result = session.run("while True: pass", timeout_s=0.3)
        assert isinstance(result.error, errors.TimeLimitExceeded)
        assert result.error.details["session"] == "ended"
        with pytest.raises(errors.SessionLost, match="ran longer"):
            session.run("1")


def test_a_closed_session_is_gone_and_closing_twice_is_fine(supervisor: Supervisor) -> None:
    session = supervisor.session("python")
    session.close()
    session.close()
    with pytest.raises(errors.SessionLost, match="closed"):
        session.run("1")
    with pytest.raises(errors.SessionLost):
        session.interrupt()


def test_another_principal_cannot_use_a_session_though_it_has_its_token(supervisor: Supervisor) -> None:
    with supervisor.session("python") as session, Supervisor.start(principal="eve") as eve:
        session.run("secret = 'canary'")
        eve.run("1", "python")  # so that she knows the pool
        stolen = Session(eve._handle, session._channel, session._token, session._asked)
        for use in (lambda: stolen.run("secret"), stolen.interrupt):
            with pytest.raises(errors.SessionLost, match="no such session"):
                use()
        stolen.close()
        assert session.run("secret").value == "canary"


def test_a_checkpoint_is_json_and_makes_the_session_anew(supervisor: Supervisor) -> None:
    with supervisor.session("python", label="book", permissions={"timeout_s": 7}) as session:
        session.run("n = inputs", [1, 2])
        session.run("1 / 0")
        session.run("m = sum(n)", label="sum")
        text = json.dumps(session.checkpoint())
    with supervisor.restore_session(json.loads(text)) as restored:
        assert restored.run("m").value == 3
        assert [cell.label for cell in restored.history] == ["", "sum", ""]
        assert restored.checkpoint()["permissions"]["timeout_s"] == 7


def test_a_checkpoint_that_fails_now_says_at_which_cell(supervisor: Supervisor) -> None:
    with supervisor.session("python") as session:
        session.run("n = 1")
        checkpoint = session.checkpoint()
    checkpoint["cells"].append({"code": "1 / 0", "label": "", "inputs": ""})
    with pytest.raises(errors.GuestException, match="cell 2") as caught:
        supervisor.restore_session(checkpoint)
    assert caught.value.details["cell"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"cells": None},
        {"cells": [{"code": 1, "label": "", "inputs": ""}]},
        {"cells": [{"code": "1", "label": "", "inputs": "%%%"}]},
        {"language": 7},
        {"idle_timeout_s": "soon"},
        {"permissions": 3},
        {"trust": "absolute"},
    ],
    ids=str,
)
def test_a_malformed_checkpoint_is_bad_use(supervisor: Supervisor, change: dict[str, Any]) -> None:
    good = {
        "version": 1, "language": "python", "permissions": {}, "trust": "untrusted", "label": "",
        "idle_timeout_s": None, "cells": [],
    }  # fmt: skip
    with pytest.raises(errors.ConfigError):
        supervisor.restore_session({**good, **change})


def test_a_checkpoint_cannot_claim_more_than_its_reader_may(supervisor: Supervisor) -> None:
    with supervisor.session("python", trust=Trust.TRUSTED) as session:
        checkpoint = session.checkpoint()
    with Supervisor.start(trust=Trust.UNTRUSTED, principal="guest") as modest, pytest.raises(errors.TrustViolation):
        modest.restore_session(checkpoint)


def test_a_session_and_its_checkpoint_keep_the_profile(supervisor: Supervisor) -> None:
    loaded = "import sys\n'numpy' in sys.modules"
    with supervisor.session("python", profile="bare") as session:
        assert session.run(loaded).unwrap() is False
        checkpoint = json.loads(json.dumps(session.checkpoint()))
    assert checkpoint["profile"] == "bare"
    with supervisor.restore_session(checkpoint) as again:
        assert again.run(loaded).unwrap() is False
    with pytest.raises(errors.UnknownProfile, match="bare, science"):
        supervisor.session("python", profile="klingon")


def test_a_language_without_sessions_is_refused(supervisor: Supervisor) -> None:
    with pytest.raises(errors.RunvisorError):
        supervisor.session("wat")


def test_more_sessions_than_the_operator_allows_are_refused_and_closing_makes_room(supervisor: Supervisor) -> None:
    opened: list[Session] = []
    try:
        with pytest.raises(errors.TooManySessions):
            opened.extend(supervisor.session("python") for _ in range(20))
        assert len(opened) == 3
        assert supervisor.run("1", "python").value == 1, "the rest of the pool is left to tasks"
    finally:
        for session in opened:
            session.close()
    supervisor.session("python").close()


def test_closing_a_client_closes_its_sessions(supervisor: Supervisor) -> None:
    with Supervisor.start(principal="hasty") as hasty:
        session = hasty.session("python")
        session.run("n = 1")
    with pytest.raises(errors.SessionLost, match="closed"):
        session.run("n")


def test_the_async_twin(supervisor: Supervisor) -> None:
    async def use() -> Any:
        async with await supervisor.asession("python") as session:
            await session.run("n = 1")
            waiting = asyncio.create_task(session.run("while True: pass"))
            while not await session.interrupt():
                await asyncio.sleep(0.01)
            ended = await waiting
            return (await session.run("n")).value, ended.error

    value, error = asyncio.run(use())
    assert value == 1
    assert isinstance(error, errors.GuestInterrupted)


def test_a_pool_that_dies_takes_its_sessions_and_says_so(supervisor: Supervisor) -> None:
    session = supervisor.session("javascript")
    pools = supervisor.describe()["pools"]
    os.kill(next(pool["active"]["pid"] for pool in pools if pool["runtime"] == "v8"), signal.SIGKILL)
    with pytest.raises(errors.SessionLost, match="pool died"):
        session.run("1")
    assert supervisor.run("1", "javascript").value == 1
    session.close()
