"""A task: one piece of code and everything needed to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from runvisor.policies.errors import ConfigError, InvalidTask, ProtocolError, RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value, pack, unpack

MAX_CODE_BYTES: Final = 16 * 1024 * 1024
MAX_COMPONENT_BYTES: Final = 32 * 1024 * 1024
"""Of a component, which may hold an interpreter."""
MAX_FILES: Final = 256
MAX_FILES_BYTES: Final = 64 * 1024 * 1024
_MAX_NAME_BYTES: Final = 255
_MAX_PROFILE: Final = 64
_WITH_FILES: Final = frozenset({"python", "wasm", "wat", "c", "cpp", "zig", "go", "rust"})
_WITH_PROFILES: Final = frozenset({"python"})


@dataclass(frozen=True, slots=True)
class Task:
    """Code plus inputs, permissions and trust; says nothing of where it runs.

    Example:
        >>> task = Task("inputs['x'] + 1", "python", {"x": 41})
        >>> Task.from_wire(task.to_wire()) == task
        True
    """

    code: str | bytes
    """Source text, or the bytes of a wasm module or component."""
    language: str
    """A name of `runvisor.policies.language.LANGUAGES`; never ``auto`` here."""
    inputs: Value = None
    """What ``main(inputs)`` or the name ``inputs`` sees in the guest."""
    permissions: Permissions = field(default_factory=Permissions)
    trust: Trust = Trust.UNTRUSTED
    label: str = ""
    """A name for people: in tables, tracebacks and the audit log."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the guest finds under ``/in``, by relative path."""
    folder: str = ""
    """Where the guest starts, if its grant shows that place; empty is its scratch."""
    profile: str = ""
    """Which set of loaded packages it wants, by the operator's name for it; empty is the default."""
    objective: Objective | None = None
    """What its choice of arm is to make small; None leaves it to the handle. It does not travel: the handle chooses."""
    critical: bool = False
    """It meets a deadline: no arm is tried on it merely to learn. It does not travel either."""

    def __post_init__(self) -> None:
        check_code(self.code, self.language)
        _check_files(self.files)
        if self.files and self.language not in _WITH_FILES:
            raise InvalidTask(f"{self.language} has no way to read files", "files", "pass the data as inputs")
        if not isinstance(self.critical, bool) or not isinstance(self.objective, Objective | None):
            raise InvalidTask("critical is true or false, and an objective is an Objective", "objective")
        if not isinstance(self.profile, str) or len(self.profile) > _MAX_PROFILE:
            raise InvalidTask("a profile is a short name", "profile", "write bare, science, or one of the operator's")
        if self.profile and self.language not in _WITH_PROFILES:
            raise InvalidTask(f"{self.language} has no profiles", "profile", "leave it out")

    def with_inputs(self, inputs: Value) -> Task:
        """Return the same task with other inputs, without checking again what has been checked."""
        task = object.__new__(Task)
        for name in Task.__slots__:
            object.__setattr__(task, name, inputs if name == "inputs" else getattr(self, name))
        return task

    @property
    def source(self) -> str:
        """The code as text.

        Raises:
            InvalidTask: The code is bytes that are not UTF-8.
        """
        if isinstance(self.code, str):
            return self.code
        try:
            return self.code.decode()
        except UnicodeDecodeError as error:
            raise InvalidTask(
                "the code is neither text nor a wasm module", f"byte {error.start}", "pass UTF-8 text"
            ) from None

    def to_wire(self) -> dict[str, Any]:
        """Return plain data; inputs are packed apart, so that only the guest decodes them.

        Raises:
            InvalidTask: The inputs are not values that may cross the boundary.
        """
        try:
            inputs = pack(self.inputs)
        except RunvisorError as error:
            raise InvalidTask(error.what, error.where.replace("value", "inputs", 1), error.remedy) from None
        return self.envelope(inputs)

    def envelope(self, inputs: bytes) -> dict[str, Any]:
        """Return plain data with inputs that have been packed elsewhere; to be read and sent, not changed."""
        return {
            "code": self.code,
            "language": self.language,
            "inputs": inputs,
            "permissions": _to_dict(self.permissions),
            "trust": int(self.trust),
            "label": self.label,
            "files": dict(self.files),
            "folder": self.folder,
            "profile": self.profile,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Task:
        """Rebuild a task.

        Raises:
            ProtocolError: The data does not describe a task.
        """
        try:
            return cls(
                code=data["code"],
                language=str(data["language"]),
                inputs=unpack(data["inputs"]),
                permissions=Permissions.from_dict(data["permissions"]),
                trust=Trust(data["trust"]),
                label=str(data["label"]),
                files=data["files"],
                folder=str(data["folder"]),
                profile=data["profile"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise ProtocolError(f"not a task: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=256)
def _to_dict(permissions: Permissions) -> dict[str, Any]:
    return permissions.to_dict()


def check_code(code: object, language: str) -> None:
    """Refuse what is no code of a task, or of a cell.

    Raises:
        InvalidTask: It is of another type, empty, too large, or no valid Unicode.
    """
    if not isinstance(code, str | bytes):
        raise InvalidTask(f"code is of type {type(code).__name__}", "code", "pass str or bytes")
    if not code.strip():
        raise InvalidTask("the code is empty", "code")
    most = MAX_COMPONENT_BYTES if language == "component" else MAX_CODE_BYTES
    if _size(code) > most:
        raise InvalidTask(f"the code is larger than {most} bytes", "code", "pass data as inputs")


def _size(code: str | bytes) -> int:
    """Return how many bytes the code has on the wire."""
    if isinstance(code, bytes) or code.isascii() or len(code) > MAX_CODE_BYTES:
        return len(code)
    try:
        return len(code.encode())
    except UnicodeEncodeError as error:
        raise InvalidTask("the code holds lone surrogates", f"character {error.start}", "pass valid Unicode") from None


def is_file_name(name: object) -> bool:
    r"""Say whether a relative path may name a file that goes into or comes out of a sandbox.

    Example:
        >>> is_file_name("data/a.csv"), is_file_name("../a"), is_file_name("/a"), is_file_name("a\nb")
        (True, False, False, False)
    """
    return (
        isinstance(name, str)
        and name.isprintable()
        and all(part not in ("", ".", "..") and len(part.encode()) <= _MAX_NAME_BYTES for part in name.split("/"))
    )


def _check_files(files: object) -> None:
    if not isinstance(files, Mapping):
        raise InvalidTask(f"files are of type {type(files).__name__}", "files", "pass a mapping of names to bytes")
    if len(files) > MAX_FILES:
        raise InvalidTask(f"{len(files)} files are more than {MAX_FILES}", "files", "grant a folder to read")
    for name, data in files.items():
        if not is_file_name(name):
            raise InvalidTask(f"{str(name)[:80]!r} is no relative path", "files", "write name or folder/name")
        if not isinstance(data, bytes):
            raise InvalidTask(f"{name} is of type {type(data).__name__}", f"files[{name!r}]", "pass bytes")
    if sum(map(len, files.values())) > MAX_FILES_BYTES:
        raise InvalidTask(f"the files hold more than {MAX_FILES_BYTES} bytes", "files", "grant a folder to read")
