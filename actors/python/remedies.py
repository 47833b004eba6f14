"""What a guest can do about an error that the sandbox caused: which permission, profile or package is missing."""

from __future__ import annotations

import errno
import importlib.util
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

_DISTRIBUTIONS: Final = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_MAX_LINKS: Final = 20
_REFUSED: Final = (errno.EPERM, errno.EACCES)
_SPAWNING: Final = re.compile(r"\b(fork|exec[vl]p?e?|spawn\w*|system|popen|Popen|subprocess|multiprocessing|pty)\b")
_SPAWNING_FILES: Final = re.compile(r"/(subprocess|pty|multiprocessing/\w+|concurrent/futures/process)\.py$")
_NETWORK: Final = re.compile(r"\b(socket|connect|getaddrinfo|gethostby\w+|create_connection)\b")
_NETWORK_FILES: Final = re.compile(r"/(socket|ssl|http/client|urllib/request|asyncio/\w+_events)\.py$")
_NO_NETWORK: Final = "a task reaches only the hosts that are named in network.allowed_hosts"
_NO_PROCESSES: Final = "a task may not start child processes; use threads or asyncio, or ask for processes"
_OWN_FOLDERS: Final = ("/tmp/", "/in/", "/out/")


def remedy_for(error: BaseException, profiles: Mapping[str, str]) -> str:
    """Return what can be done about an exception, or nothing if the sandbox has no part in it.

    Args:
        error: What the guest raised.
        profiles: By the name of a package, the profile that has it.
    """
    try:
        for link in _chain(error):
            remedy = _remedy(link, profiles)
            if remedy:
                return remedy
    except Exception:  # the guest's exception may be as hostile as it likes
        return ""
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it: libraries wrap a refusal in errors of their own."""
    link: BaseException | None = error
    for _ in range(_MAX_LINKS):
        if link is None:
            return
        yield link
        reason = getattr(link, "reason", None)  # urllib's
        link = link.__cause__ or link.__context__ or (reason if isinstance(reason, BaseException) else None)


def _remedy(error: BaseException, profiles: Mapping[str, str]) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(error.name, profiles)
    if isinstance(error, EOFError):
        return "there is no standard input; pass what it needs as inputs" if "reading a line" in str(error) else ""
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "the sandbox limits the number of threads; use fewer"
    return _refusal(error) if isinstance(error, OSError) else ""


def _missing_module(name: str, profiles: Mapping[str, str]) -> str:
    package = name.partition(".")[0]
    if package in profiles:
        name = profiles[package]
        return f"the profile {name!r} has {package}; run the task with profile={name!r}"
    if package != name and importlib.util.find_spec(package) is not None:
        return f"{package} is installed, but this version has no {name}"
    if package in sys.stdlib_module_names:
        return f"{package} is not part of the standard library on this system"
    distribution = _DISTRIBUTIONS.get(package, package)
    return (
        f"{package} is not installed, and nothing can be installed from inside; the operator can install "
        f"{distribution} beside runvisor, or in the virtual environment of a PythonProfile"
    )


def _refusal(error: OSError) -> str:
    if type(error).__name__ in ("gaierror", "herror"):
        return _NO_NETWORK
    if error.errno == errno.ENETUNREACH:
        return _NO_NETWORK
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return "the scratch is full; raise disk_bytes, or write less"
    if isinstance(error.filename, str | bytes) and error.errno in (*_REFUSED, errno.EROFS, errno.ENOENT):
        return _missing_file(error.errno, os.fsdecode(error.filename))
    file, line = _origin(error.__traceback__)
    if error.errno == errno.ENOENT and _SPAWNING_FILES.search(file):  # its semaphores need /dev/shm
        return _NO_PROCESSES
    if error.errno not in _REFUSED:
        return ""
    if _SPAWNING_FILES.search(file) or _SPAWNING.search(line):
        return _NO_PROCESSES
    if _NETWORK_FILES.search(file) or _NETWORK.search(line):
        return _NO_NETWORK
    return "the sandbox refuses this system call"


def _missing_file(number: int | None, path: str) -> str:
    if not path.startswith("/") or path.startswith(_OWN_FOLDERS):
        return "the scratch starts empty; files that come with a task lie in /in" if number == errno.ENOENT else ""
    if number == errno.EROFS or (number in _REFUSED and os.access(path, os.R_OK) and not Path(path).is_dir()):
        return "only /tmp can be written; name other files in filesystem.write"
    return (
        f"the sandbox shows no files but its own; name {path[:200]} in filesystem.read, or pass its content as inputs"
    )


def _origin(trace: TracebackType | None) -> tuple[str, str]:
    """Return the file in which an exception arose, and the text of that line."""
    frames = list(traceback.walk_tb(trace))
    if not frames:
        return "", ""
    frame, number = frames[-1]
    return frame.f_code.co_filename, linecache.getline(frame.f_code.co_filename, number)
