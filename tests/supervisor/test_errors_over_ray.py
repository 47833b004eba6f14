"""Every error comes back from a Ray call as the class it was, with all it said."""

from __future__ import annotations

import pytest
import ray

from runvisor.policies.errors import ERRORS, RunvisorError


@pytest.fixture(scope="module")
def thrower(local_ray: None) -> object:
    @ray.remote(num_cpus=0)
    class Thrower:
        def throw(self, name: str) -> None:
            raise ERRORS[name]("what", "where", "remedy", {"number": 1})

    return Thrower.remote()


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_an_error_survives_a_ray_call(thrower: object, name: str) -> None:
    with pytest.raises(ERRORS[name]) as caught:
        ray.get(thrower.throw.remote(name))  # type: ignore[attr-defined]
    again = RunvisorError.from_wire(caught.value.to_wire())
    assert type(again) is ERRORS[name]
    assert (again.what, again.where, again.remedy, again.details) == ("what", "where", "remedy", {"number": 1})
