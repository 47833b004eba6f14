"""What does the kernel egress filter cost: a task with hosts, a task without, and each connection?

Run it with ``python -m benchmarks.egress_filter``. Needs root and cgroups of version 2.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.first_answer import Parts
from benchmarks.measure import Contender, apart, interleave, report, summarise, timed
from runvisor.actors.jail import cgroups, kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.cgroup_filter import FilteredGroup, netns_cookie
from runvisor.actors.jail.egress.plan import PROXY_ADDRESS, NetworkPlan
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import EGRESS_FILTER
from runvisor.actors.python.profiles import PROFILES
from runvisor.actors.python.runtime import spec_of
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import Network, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

ROUNDS = 200
HOSTS = ("api.example.com",)
_names = itertools.count()


def task(hosts: tuple[str, ...], *, is_filtered: bool = True) -> Parts:
    """Start a pool; return a call that runs a task with a grant of hosts, and the pool's end."""
    spec = replace(spec_of(PROFILES["bare"]), without=frozenset() if is_filtered else frozenset({EGRESS_FILTER}))
    runtime = JailedRuntime("python", spec, PoolSize(minimum=4, maximum=8))
    runtime.start()
    permissions = Permissions(network=Network(hosts))
    grant = Grant("bench", Trust.UNTRUSTED, permissions)
    one = Task("1 + 1", "python", None, permissions, Trust.UNTRUSTED)

    def call() -> None:
        result = runtime.execute(one, "native", grant, Watch())
        if result.error is not None:
            raise result.error
        if (EGRESS_FILTER in result.isolation.layers) != (is_filtered and bool(hosts)):
            raise RuntimeError("the kernel egress filter is not where it is to be measured")

    call()
    return call, runtime.close


def with_filter() -> Parts:
    """A task that is granted a host."""
    return task(HOSTS)


def without_filter() -> Parts:
    """The same with one layer less."""
    return task(HOSTS, is_filtered=False)


def without_hosts() -> Parts:
    """A task that is granted nothing."""
    return task(())


def connections(*, is_filtered: bool) -> Parts:
    """Return a call that connects within a network of its own, and its end."""
    plan = NetworkPlan.of(HOSTS)
    home = cgroups.find_v2_parent()
    assert home is not None
    group = FilteredGroup.make(group_name(), home) if is_filtered else None
    for join in group.joins if group is not None else ():
        os.write(join, b"0")
    kernel.unshare(kernel.CLONE_NEWNET)
    listeners = inside.prepare(plan)
    if group is not None:
        group.filter.admit(netns_cookie(listeners[0].fileno()), plan.ports)
    place = (PROXY_ADDRESS, plan.proxy_port)

    def call() -> None:
        with socket.create_connection(place):
            listeners[0].accept()[0].close()

    def end() -> None:
        for listener in listeners:
            listener.close()
        (home / "cgroup.procs").write_text("0")
        if group is not None:
            group.close()

    return call, end


def filtered_connection() -> Parts:
    """A connection that three programs are asked about, and each of its packets."""
    return connections(is_filtered=True)


def plain_connection() -> Parts:
    """One that nobody is asked about."""
    return connections(is_filtered=False)


def own_filter() -> None:
    """What each execution would pay for a filter of its own."""
    FilteredGroup.make(group_name()).close()


def group_name() -> str:
    """Return a name for a group that nobody has."""
    return cgroups.group_name(os.getpid(), next(_names), "benchmark")


def main() -> None:
    """Measure and report."""
    jobs: dict[str, Callable[[], Parts]] = {
        "task with a host, filtered": with_filter,
        "task with a host, not filtered": without_filter,
        "task without hosts": without_hosts,
        "connection, filtered": filtered_connection,
        "connection, not filtered": plain_connection,
    }
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {name: stack.enter_context(apart(make)) for name, make in jobs.items()}
        contenders["a filter for each execution"] = timed(own_filter)
        tasks = [name for name in jobs if name.startswith("task")]
        bursts = dict.fromkeys((name for name in jobs if name not in tasks), 20)
        times = interleave(contenders, rounds=ROUNDS, pauses_s=dict.fromkeys(tasks, 0.05), bursts=bursts)
    report("egress filter", summarise(times, "task with a host, not filtered"), "task with a host, not filtered")


if __name__ == "__main__":
    main()
