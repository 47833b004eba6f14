"""What an operator may decide about runtimes, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors import registry
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.actors.settings import RuntimeSettings
from runvisor.policies.errors import ConfigError


@pytest.mark.parametrize("cores", [0, -1.0, 0.001, float("nan"), float("inf"), "2", True])
def test_a_share_of_cpu_time_is_a_number_that_the_kernel_takes(cores: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RuntimeSettings(cores=cores)
    assert caught.value.where == "cores"


@pytest.mark.parametrize("name", ["python", "v8"])
@pytest.mark.parametrize("cores", [None, 0.5, 3])
def test_the_share_reaches_the_jails_of_both_process_runtimes(name: str, cores: float | None) -> None:
    runtime = registry.create(name, PoolSize(), RuntimeSettings(cores=cores))
    assert isinstance(runtime, JailedRuntime)
    assert runtime._zygote.spec.cores == cores
    runtime.close()
