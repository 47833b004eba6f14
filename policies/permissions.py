"""What an execution may touch and how much it may use.

Everything is denied unless named. Values are frozen: `Permissions.narrowed_to`
returns a new value and nothing widens one. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.hosts import HostPattern

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB

ANYTHING: Final = "**"
"""The pattern that, in a ceiling, covers every path, host or tool."""

_HOST = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(:\d{1,5})?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": KiB, "m": MiB, "g": GiB, "t": 1024 * GiB}


def _shown(value: object) -> str:
    """Write a value into a message; a hostile one neither floods it nor fails to print."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a ...
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def _listed(value: object, where: str) -> tuple[Any, ...]:
    """Refuse text where a list of texts belongs: each letter would become an item."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidPermissions(f"{where} is not a list of text", where, "write [...]")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Globs the guest may read or write. Empty means: nothing but its own scratch."""

    read: tuple[str, ...] = ()
    """Globs it may read."""
    write: tuple[str, ...] = ()
    """Globs it may create, change and read."""

    def __post_init__(self) -> None:
        for kind in ("read", "write"):
            patterns = _listed(getattr(self, kind), f"filesystem.{kind}")
            object.__setattr__(self, kind, patterns)
            for index, pattern in enumerate(patterns):
                where = f"filesystem.{kind}[{index}]"
                if not isinstance(pattern, str) or not pattern or "\0" in pattern:
                    raise InvalidPermissions(f"{_shown(pattern)} is not a path pattern", where)
                if ".." in pattern.split("/"):
                    raise InvalidPermissions(f"{_shown(pattern)} climbs out with '..'", where, "write the path itself")

    @property
    def is_relative(self) -> bool:
        """Some pattern is meant from the caller's folder."""
        return any(_is_relative(pattern) for pattern in self.read + self.write)

    def anchored(self, folder: str) -> Filesystem:
        """Return the same with every relative pattern meant from a folder.

        Args:
            folder: An absolute path; its own characters are no wildcards.

        Example:
            >>> Filesystem(read=("./data/*.csv", "/srv/**"), write=("out/**",)).anchored("/home/u")
            Filesystem(read=('/home/u/data/*.csv', '/srv/**'), write=('/home/u/out/**',))
        """
        base = re.sub(r"([*?\[])", r"[\1]", folder.rstrip("/"))

        def anchor(pattern: str) -> str:
            return f"{base}/{pattern.removeprefix('./')}" if _is_relative(pattern) else pattern

        return Filesystem(tuple(map(anchor, self.read)), tuple(map(anchor, self.write)))


def _is_relative(pattern: str) -> bool:
    return not pattern.startswith("/") and pattern != ANYTHING


@dataclass(frozen=True, slots=True)
class Network:
    """Hosts the guest may reach. Empty means: no network at all."""

    allowed_hosts: tuple[str, ...] = ()
    """``name``, ``name:port``, ``*.name`` with at least two labels after the star, or ``**``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_hosts", _listed(self.allowed_hosts, "network.allowed_hosts"))
        for index, host in enumerate(self.allowed_hosts):
            where = f"network.allowed_hosts[{index}]"
            if host == ANYTHING:
                continue
            if not isinstance(host, str) or not _HOST.fullmatch(host.lower()):
                raise InvalidPermissions(
                    f"{_shown(host)} is not a host pattern", where, "write name, name:port or *.name"
                )
            if host.startswith("*.") and host.count(".") < 2:
                raise InvalidPermissions(f"{_shown(host)} would allow a whole top-level domain", where)
            HostPattern.parse(host)


@dataclass(frozen=True, slots=True)
class Permissions:
    """The request, the ceiling and the grant are all of this one type.

    A limit of ``None`` is not asked for. The defaults suit a short calculation
    of unknown origin: no files, no network, no child processes.

    Example:
        >>> asked = Permissions.from_dict({"memory": {"limit": "128MB"}, "execution": {"timeout": 5000}})
        >>> asked.memory_bytes == 128 * MiB, asked.timeout_s
        (True, 5.0)
        >>> asked.excess_over(Permissions(memory_bytes=64 * MiB))
        ('memory_bytes: 134217728 is more than 67108864',)
    """

    filesystem: Filesystem = Filesystem()
    """Files beyond the guest's scratch."""
    network: Network = Network()
    """Hosts."""
    memory_bytes: int = 256 * MiB
    """Memory the guest may add to its warm instance."""
    timeout_s: float = 10.0
    """Wall clock, from the moment the guest starts."""
    cpu_s: float | None = None
    """CPU time of all its threads."""
    instructions: int | None = None
    """Instruction budget; only metered engines can keep it."""
    stack_bytes: int | None = None
    """Stack of the main thread."""
    output_bytes: int = 1 * MiB
    """Cap of stdout and of stderr, each."""
    disk_bytes: int = 64 * MiB
    """Size of the scratch, which vanishes with the instance."""
    processes: int = 0
    """Child processes it may start."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables it sees."""
    tools: tuple[str, ...] = ()
    """Names of the tools it may call."""
    deterministic: bool = False
    """Nothing that differs from run to run: a fixed clock, seeded randomness, NaNs of one kind. The same
    program with the same inputs then gives the same bits and the same count of instructions."""

    def __post_init__(self) -> None:
        if not isinstance(self.filesystem, Filesystem) or not isinstance(self.network, Network):
            raise InvalidPermissions("filesystem and network take a Filesystem and a Network", "permissions")
        object.__setattr__(self, "tools", _listed(self.tools, "tools"))
        for index, tool in enumerate(self.tools):
            if not isinstance(tool, str) or not tool:
                raise InvalidPermissions(f"{_shown(tool)} is not the name of a tool", f"tools[{index}]")
        if not isinstance(self.env, Mapping):
            raise InvalidPermissions("env is no mapping of names to text", "env")
        object.__setattr__(self, "env", dict(self.env))
        if not isinstance(self.deterministic, bool):
            raise InvalidPermissions(f"{_shown(self.deterministic)} is neither true nor false", "deterministic")
        for name in ("memory_bytes", "output_bytes", "disk_bytes"):
            self._check_number(name, int, minimum=1)
        self._check_number("processes", int, minimum=0)
        self._check_number("timeout_s", (int, float), minimum=0.001)
        for name, minimum in (("cpu_s", 0.001), ("instructions", 1), ("stack_bytes", 1)):
            if getattr(self, name) is not None:
                self._check_number(name, (int, float) if name == "cpu_s" else int, minimum=minimum)
        for key, text in self.env.items():
            if not isinstance(key, str) or not key or "=" in key or not isinstance(text, str) or "\0" in key + text:
                raise InvalidPermissions(f"{_shown(key)} is not an environment variable", "env")

    def __hash__(self) -> int:
        mine = tuple(getattr(self, name) for name in _HASHED)
        return hash((mine, frozenset(self.env.items()) if self.env else None))

    def _check_number(self, name: str, kinds: type | tuple[type, ...], *, minimum: float) -> None:
        number: Any = getattr(self, name)
        valid = isinstance(number, kinds) and not isinstance(number, bool)
        if not valid or not minimum <= number < 2**63:
            raise InvalidPermissions(f"{_shown(number)} is not a limit", name, f"give a number of at least {minimum}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Permissions:
        """Read permissions from plain data, in our spelling or the paper's.

        The paper's: ``memory: {limit: "128MB"}``, ``execution: {timeout: 5000}``
        (milliseconds), ``network: {allowedHosts: [...]}``, ``filesystem: {read: [...]}``.

        Raises:
            InvalidPermissions: An unknown key or a bad value; names the key.
        """
        if not isinstance(data, Mapping):
            raise InvalidPermissions("permissions are no mapping of names to values", "permissions")
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in data.items():
            if not isinstance(key, str):
                raise InvalidPermissions(f"unknown permission {_shown(key)}", "permissions", "use text as keys")
            if key == "memory":
                values["memory_bytes"] = _size(_only(value, "limit", key), "memory.limit")
            elif key == "execution":
                milliseconds = _only(value, "timeout", key)
                if (
                    isinstance(milliseconds, bool)
                    or not isinstance(milliseconds, int | float)
                    or not abs(milliseconds) < 2**63
                ):
                    raise InvalidPermissions(f"{_shown(milliseconds)} is not a time in ms", "execution.timeout")
                values["timeout_s"] = milliseconds / 1000
            elif key == "network":
                hosts = _strings(value, {"allowed_hosts", "allowedHosts"}, key)
                values[key] = Network(next(iter(hosts.values()), ()))
            elif key == "filesystem":
                values[key] = Filesystem(**_strings(value, {"read", "write"}, key))
            elif key.endswith("_bytes") and key in known:
                values[key] = None if value is None else _size(value, key)
            elif key == "env":
                if not isinstance(value, Mapping):
                    raise InvalidPermissions("env is no mapping of names to text", "env")
                values[key] = {str(name): str(text) for name, text in value.items()}
            elif key == "tools":
                values[key] = _listed(value, key)
            elif key in known:
                values[key] = value
            else:
                raise InvalidPermissions(f"unknown permission {_shown(key)}", key, f"known: {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` reads back to an equal value."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        data["filesystem"] = {"read": list(self.filesystem.read), "write": list(self.filesystem.write)}
        data["network"] = {"allowed_hosts": list(self.network.allowed_hosts)}
        data["tools"] = list(self.tools)
        data["env"] = dict(self.env)
        return data

    def excess_over(self, ceiling: Permissions) -> tuple[str, ...]:
        """Name each permission that goes beyond the ceiling, one sentence each."""
        excess = [
            f"{name}: {mine!r} is more than {limit!r}"
            for name in _LIMITS
            if _is_more(mine := getattr(self, name), limit := getattr(ceiling, name))
        ]
        if ceiling.deterministic and not self.deterministic:
            excess.append("deterministic: clocks and randomness not allowed")
        for name, mine, allowed in _list_pairs(self, ceiling):
            missing = [item for item in mine if not _covered(name, item, allowed)]
            if missing:
                excess.append(f"{name}: {', '.join(map(repr, missing))} not allowed")
        return tuple(excess)

    def narrowed_to(self, ceiling: Permissions) -> Permissions:
        """Return the part of these permissions that the ceiling allows.

        A limit that was not asked for becomes the ceiling's: whoever asks for
        no bound on ``cpu_s`` gets the one that holds for them.

        Example:
            >>> Permissions(timeout_s=60).narrowed_to(Permissions(timeout_s=5)).timeout_s
            5
        """
        limits = {
            name: limit if (mine := getattr(self, name)) is None or _is_more(mine, limit) else mine
            for name, limit in ((name, getattr(ceiling, name)) for name in _LIMITS)
        }
        lists = list(_list_pairs(self, ceiling))
        kept = {name: tuple(item for item in mine if _covered(name, item, allowed)) for name, mine, allowed in lists}
        is_deterministic = self.deterministic or ceiling.deterministic
        if (
            is_deterministic == self.deterministic
            and all(limits[name] == getattr(self, name) for name in _LIMITS)
            and all(kept[name] == tuple(mine) for name, mine, _ in lists)
        ):
            return self  # the common case, and checking new ones takes longer than all else here
        return replace(
            self,
            **limits,
            filesystem=Filesystem(kept["filesystem.read"], kept["filesystem.write"]),
            network=Network(kept["network.allowed_hosts"]),
            tools=kept["tools"],
            deterministic=is_deterministic,
        )


_LIMITS: Final = (
    "memory_bytes",
    "timeout_s",
    "cpu_s",
    "instructions",
    "stack_bytes",
    "output_bytes",
    "disk_bytes",
    "processes",
)


_HASHED: Final = (*_LIMITS, "filesystem", "network", "tools", "deterministic")


def _is_more(mine: float | None, limit: float | None) -> bool:
    """A limit not asked for is no excess: narrowing sets it to the ceiling's."""
    return mine is not None and limit is not None and mine > limit


def _list_pairs(asked: Permissions, ceiling: Permissions) -> Iterable[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    yield "filesystem.read", asked.filesystem.read, ceiling.filesystem.read + ceiling.filesystem.write
    yield "filesystem.write", asked.filesystem.write, ceiling.filesystem.write
    yield "network.allowed_hosts", asked.network.allowed_hosts, ceiling.network.allowed_hosts
    yield "tools", asked.tools, ceiling.tools


def _covered(name: str, item: str, allowed: tuple[str, ...]) -> bool:
    """Say whether a ceiling's patterns cover one asked pattern of the same permission.

    Deliberately simple, so that it is never wrong in the open direction: equal
    text, ``**``, for files a directory prefix ``dir/**``, for hosts what
    `HostPattern.covers` says. In a path ``*.name`` is a glob and means something else.
    """
    if item in allowed or ANYTHING in allowed:
        return True
    if name.startswith("filesystem."):
        return any(pattern.endswith("/**") and item.startswith(pattern[:-2]) for pattern in allowed)
    if name == "network.allowed_hosts":
        asked = HostPattern.parse(item)
        return any(HostPattern.parse(pattern).covers(asked) for pattern in allowed)
    return False


def _only(value: object, name: str, where: str) -> Any:
    if not isinstance(value, Mapping) or set(value) != {name}:
        raise InvalidPermissions(f"{where} takes exactly one key, {name!r}", where)
    return value[name]


def _strings(value: object, names: set[str], where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping) or not set(value) <= names:
        raise InvalidPermissions(f"{where} takes only {', '.join(sorted(names))}", where)
    found: dict[str, tuple[str, ...]] = {}
    for name, items in value.items():
        if isinstance(items, str) or not isinstance(items, list | tuple):
            raise InvalidPermissions(f"{where}.{name} is not a list of text", f"{where}.{name}")
        found[name] = tuple(items)
    return found


def _size(value: object, where: str) -> int:
    """Read ``128``, ``"128MB"`` or ``"1.5 GiB"`` as bytes (MB and MiB are both 2**20)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 32 else None
    if match is None:
        raise InvalidPermissions(f"{_shown(value)} is not a size", where, 'write bytes or text such as "128MB"')
    return int(float(match[1]) * _UNITS[match[2].lower().rstrip("b").rstrip("i")])
