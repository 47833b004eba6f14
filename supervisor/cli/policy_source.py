"""Where ``runvisor policy`` finds what was learned: in a running supervisor, or in what the last one saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError

from runvisor.actors.runtime import Load
from runvisor.policies.errors import ConfigError
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.prior import TrainedPrior
from runvisor.policies.scheduling.snapshot import Snapshot
from runvisor.supervisor.attach import running_supervisor
from runvisor.supervisor.belief_file import BeliefFile
from runvisor.supervisor.outcomes import OutcomeJournal
from runvisor.supervisor.prior_file import drop_prior, load_prior, save_prior
from runvisor.supervisor.state_folder import state_folder

_FOLDER: Final = "policy"


@dataclass(frozen=True, slots=True)
class Source:
    """One supervisor's beliefs, with the folder that they, the journal and the prior are kept in."""

    where: str
    """In words that follow "from"."""
    folder: Path
    document: Mapping[str, Any] | None
    """The present snapshot in wire form, if anything was learned."""
    saved: BeliefFile | None = None
    """The file that it was read from, without a running supervisor."""
    actor: Any = None
    """The running supervisor, if it is one."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """What that found out cannot run."""
    loads: Mapping[str, Load] = field(default_factory=dict)

    @property
    def snapshot(self) -> Mapping[str, Any]:
        """What is believed, in wire form.

        Raises:
            ConfigError: Nothing was saved yet.
        """
        if self.document is None:
            raise ConfigError(
                f"nothing that was learned is in {self.where}",
                "--address",
                "run some code first, or give the address of a running supervisor",
            )
        return self.document

    @property
    def scheduler(self) -> HierarchicalScheduler:
        """What is believed, ready to choose by; one that knows nothing if nothing was learned.

        Raises:
            ProtocolError: The document is of another version.
        """
        if self.document is None:
            return self.fresh()
        policy = Snapshot.from_wire(self.document).policy
        assert isinstance(policy, HierarchicalScheduler)
        policy.prior = self.prior
        return policy

    @property
    def journal(self) -> OutcomeJournal:
        """Past executions."""
        return OutcomeJournal(self.folder)

    @property
    def prior(self) -> TrainedPrior | None:
        """The prior that was trained, if one was.

        Raises:
            ConfigError: It cannot be read.
        """
        return load_prior(self.folder)

    def fresh(self) -> HierarchicalScheduler:
        """Return a scheduler that has learned nothing yet."""
        return HierarchicalScheduler(prior=self.prior)

    def install(self, prior: TrainedPrior) -> None:
        """Make a trained prior the start of what is believed of new code."""
        save_prior(self.folder, prior)
        if self.actor is not None:
            _ask(self.actor.adopt_prior.remote())

    def reset(self, *, journal: bool, prior: bool) -> None:
        """Forget what was learned, and the journal and the prior as well if they are named."""
        if journal:
            self.journal.clear()
        if prior:
            drop_prior(self.folder)
        if self.actor is not None:
            _ask(self.actor.forget.remote())
        elif self.saved is not None:
            self.saved.path.unlink(missing_ok=True)


def source_of(address: str | None) -> Source:
    """Return the running supervisor at an address, or without one what this user's supervisors here saved last.

    Raises:
        ConfigError: No supervisor runs there, or it keeps its files on another machine.
    """
    if address is None:
        folder = state_folder() / _FOLDER
        files = sorted(folder.glob("beliefs-*.msgpack"), key=lambda file: file.stat().st_mtime)
        if not files:
            return Source(f"what was saved in {folder}", folder, None)
        saved = BeliefFile(files[-1])
        return Source(f"what was saved in {saved.path}", folder, saved.read(dict), saved)
    actor, found = running_supervisor(address)
    answer = _ask(actor.policy.remote())
    if answer["node"] != ray.get_runtime_context().get_node_id():
        raise ConfigError(
            f"the supervisor on Ray at {found} runs on another machine and keeps its files there",
            "--address",
            "run this command on that machine",
        )
    loads = {runtime: load for runtime, wire in answer["loads"].items() if (load := Load.from_wire(wire)) is not None}
    where = f"the supervisor on Ray at {found}"
    return Source(where, Path(answer["folder"]), answer["snapshot"], None, actor, answer["unavailable"], loads)


def _ask(word: Any) -> Any:
    try:
        return ray.get(word)
    except RayError as error:
        raise ConfigError(f"the supervisor has ended: {type(error).__name__}", "address", "start it again") from None
