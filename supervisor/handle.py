"""The handle: decides by itself, talks to pools directly, reports what happened.

No central hop lies on the way of a task. The handle holds a read-only copy of
what the supervisor has learned and a sealed authority; the pool believes only
the latter.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray.exceptions import RayError

from runvisor.actors.channel.base import Channel
from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.channel.unix import UnixChannel
from runvisor.actors.runtime import Load
from runvisor.policies.errors import PolicyError, ProtocolError, RunvisorError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, OnExcess, Trust, resolve_grant
from runvisor.supervisor.reporter import Reporter

_RENEW_BEFORE_S: Final = 60.0
