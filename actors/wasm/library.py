"""Which of wasmtime's two faces is used: its C functions, or its public Python API where those may differ.

The C functions are called with types written down by us (`runvisor.actors.wasm.capi`),
which hold for the versions that the contract tests ran on. With any other version the
package's own API is used, which is several times slower and just as strict.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import version
from typing import Final, Literal

Api = Literal["c", "public"]

TESTED: Final = (48, 49, 50)
"""Major versions of wasmtime whose C functions the contract tests ran on."""
_LOG: Final = logging.getLogger(__name__)


def api_for(found: str) -> Api:
    """Say how a version of wasmtime is to be used.

    Example:
        >>> api_for("50.0.1"), api_for("51.0.0"), api_for("dev")
        ('c', 'public', 'public')
    """
    return "c" if is_tested(found) else "public"


def is_tested(found: str) -> bool:
    """Say whether the C functions of a version of wasmtime may be called as they are declared here."""
    major = found.split(".", maxsplit=1)[0]
    return major.isdecimal() and int(major) in TESTED


def tested_versions() -> str:
    """Name the versions that are tested.

    Example:
        >>> tested_versions()
        '48, 49, 50'
    """
    return ", ".join(map(str, TESTED))


@cache
def chosen_api() -> Api:
    """Say how the installed version is used; a log line, once, if it is the slow way."""
    found = version("wasmtime")
    api = api_for(found)
    if api == "public":
        _LOG.warning("%s", untested(found))
    return api


def untested(found: str) -> str:
    """Say in one sentence what a version outside `TESTED` means.

    Example:
        >>> untested("51.0.0")
        'wasmtime 51.0.0 is not among the tested versions (48, 49, 50): its slower public API is used'
    """
    return f"wasmtime {found} is not among the tested versions ({tested_versions()}): its slower public API is used"
