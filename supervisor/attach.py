"""How a client comes to Ray and to the supervisor there."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from typing import Any, Final

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError

from runvisor.actors.settings import Observability
from runvisor.policies.errors import ConfigError, SpawnFailed
from runvisor.supervisor.actor import NAME, NAMESPACE, SupervisorActor, SupervisorOptions
from runvisor.supervisor.clusters import own_clusters
from runvisor.supervisor.fault_handlers import kept_fault_handlers

_EMBEDDED_RAY: Final = {
    # Ray would run workers, and so every sandbox, at nice 15.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_STARTS: Final = 2
_TIMED_OUT: Final = "timed out during startup"
"""What Ray says when its own processes took longer than half a minute, which a busy machine makes them."""

_OTHER_VERSION: Final = "Version mismatch"


def connect(address: str | None) -> bool:
    """Make sure that this process is on Ray; say whether it was us who put it there.

    Args:
        address: A Ray address, or None for a Ray of this process.

    Raises:
        ConfigError: No Ray cluster answers there.
        SpawnFailed: A Ray of this process did not start, twice.
    """
    if ray.is_initialized():
        return False
    for name, value in _EMBEDDED_RAY.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address is not None:
        # Ray's own commands do this; its driver, told an address, does not and is turned away.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    for _ in range(_STARTS):
        try:
            with kept_fault_handlers():
                ray.init(
                    address=address or "local",
                    namespace=NAMESPACE,
                    include_dashboard=False if address is None else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                )
        except (ConnectionError, RayError) as error:
            raise ConfigError(
                f"no Ray cluster at {address}: {error}", "address", "start one, or leave it out"
            ) from None
        except Exception as error:  # it has no classes of its own for these
            if address is not None and _OTHER_VERSION in str(error):
                raise ConfigError(
                    f"the Ray cluster at {address} runs another version of Ray or Python", "address", "name another"
                ) from None
            if _TIMED_OUT not in str(error):
                raise
        else:
            return True
    raise SpawnFailed("Ray did not start: this machine is too busy", "ray", "try again, or give it less to do")


def running_supervisor(address: str | None) -> tuple[Any, str]:
    """Return the supervisor actor that runs on a cluster, and the cluster's address; start none.

    Args:
        address: A Ray address; None is the Ray that this process is on, or else the one
            that ``RAY_ADDRESS`` names, or else the only one of this user on this machine.

    Raises:
        ConfigError: No Ray cluster answers, there is none or more than one of this user's
            to choose from, or no supervisor of ours runs there.
    """
    connect(address or _only_cluster())
    found = str(ray.get_runtime_context().gcs_address)
    try:
        actor = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        raise ConfigError(
            f"no supervisor runs on the Ray cluster at {found}",
            "address",
            "start one: Supervisor.start, or any command with --address",
        ) from None
    if not hasattr(actor, "running"):
        raise ConfigError(
            f"what is named {NAME} on the Ray cluster at {found} is not a supervisor of this version",
            "address",
            "give the address of another cluster",
        )
    return actor, found


def _only_cluster() -> str:
    """Return the cluster to take when none is named; any where this process is on Ray already."""
    named = os.environ.get("RAY_ADDRESS", "")
    if named or ray.is_initialized():
        return named
    clusters = own_clusters()
    match clusters:
        case (only,):
            return only
        case ():
            what, remedy = "no Ray cluster of this user runs on this machine", "start a supervisor, or name one"
        case _:
            what, remedy = "more than one Ray cluster of this user runs here", f"name one of {', '.join(clusters)}"
    raise ConfigError(what, "address", remedy)


def watched(options: SupervisorOptions, observability: Observability | None) -> SupervisorOptions:
    """Return the options with the observability that was asked for beside them."""
    if observability is None:
        return options
    return replace(options, settings=replace(options.settings, observability=observability))


def require_counting(actor: Any) -> None:
    """Refuse a supervisor that was started by somebody who wanted nothing counted.

    Raises:
        ConfigError: It was.
    """
    described: Any = ray.get(actor.describe.remote())
    if described["observability"] != "kernel":
        raise ConfigError(
            "the supervisor that runs already counts nothing in the kernel",
            "observability",
            'start it anew with observability="kernel", or leave that out',
        )


def supervisor_actor(options: SupervisorOptions, *, shared: bool) -> tuple[Any, bool]:
    """Return the supervisor actor, and whether it was made now.

    Args:
        options: The operator's decisions, if it is made.
        shared: It outlives its maker and is restarted by Ray.
    """
    with contextlib.suppress(ValueError):
        return ray.get_actor(NAME, namespace=NAMESPACE), False
    actor = (
        ray.remote(SupervisorActor)
        .options(
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached" if shared else None,
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=1000,
            max_restarts=-1 if shared else 0,
        )
        .remote(options, str(ray.get_runtime_context().gcs_address) if shared else "")
    )
    return actor, True
