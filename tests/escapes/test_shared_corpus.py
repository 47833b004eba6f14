"""Hostile programs written for any sandbox, where a folder of them is at hand: each has one ending here.

The folder is ``../shared/escapes`` beside the repository, or what the
environment variable ``RUNVISOR_ESCAPES`` names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.permissions import MiB
from tests.escapes.attack import Attack, Otherwise
from tests.escapes.marking import as_parameters, selected
from tests.escapes.range import Range

FOLDER: Final = Path(
    os.environ.get("RUNVISOR_ESCAPES") or Path(__file__).resolve().parents[2].parent / "shared" / "escapes"
)
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no {FOLDER.name} folder beside this repository"),
]
_EXPECT: Final = re.compile(r"(?:#|//) EXPECT: ([a-z|]+)")
_ALLOWED_BY: Final = {
    "denied": {"denied"},
    "timeout": {"timeout"},
    "limit": {"limit", "killed", "error", "truncated"},
    "killed": {"killed"},
    "error": {"error"},
    "ok": {"ok"},
}
"""Which words of a first line each ending of ours satisfies; a limit kills the instance with an error."""

PYTHON: Final = {
    "01_fork_bomb": "denied EPERM",
    "02_read_shadow": "denied ENOENT",
    "04_ptrace_sibling": "denied EPERM",
    "05_kill_parent": "denied",
    "07_loopback_redis": "denied EPERM",
    "08_raw_socket": "denied EPERM",
    "10_netlink": "denied EPERM",
    "11_abstract_unix": "denied EPERM",
    "13_symlink_out": "denied ENOENT",
    "14_symlink_race": "denied",
    "16_write_ro": "denied EACCES",
    "17_hardlink_ro": "denied EXDEV",
    "19_proc_1_root": "denied ENOENT",
    "20_proc_sysrq": "denied ENOENT",
    "22_memory_bomb_fork": "error GuestException",
    "23_disk_fill": "denied ENOSPC",
    "25_daemonise": "error GuestException",
    "26_ignore_sigterm": "timeout",
    "28_pickle_bomb_result": "ok",
    "29_huge_int": "ok",
    "31_setuid_binary": "denied EPERM",
    "32_setuid0": "denied EPERM",
    "34_userns": "denied EPERM",
    "35_userns_clone": "denied EPERM",
    "37_bpf": "denied EPERM",
    "38_keyctl": "denied EPERM",
    "40_perf": "denied EPERM",
    "41_process_vm_readv": "denied EPERM",
    "43_mknod": "denied EPERM",
    "44_chroot_break": "denied EPERM",
    "46_shm_sysv": "denied EPERM",
    "49_segv": "killed SIGSEGV",
    "50_pth_persist": "denied",
    "52_fsconfig": "denied EPERM",
    "53_int80": "killed system call",
}
JAVASCRIPT: Final = {
    "01_infinite_loop": "timeout",
    "02_promise_never": "timeout",
    "04_atomics_wait": "timeout",
    "05_heap_bomb": "limit memory_bytes",
    "07_wasm_grow": "limit memory_bytes",
    "08_string_bomb": "limit memory_bytes",
    "10_tojson_result": "timeout",
    "11_then_getter": "timeout",
    "13_date_range": "ok",
    "14_bigint": "ok",
    "16_symbol_throw": "error GuestException",
    "17_throw_hang": "timeout",
    "19_proto_pollution_bridge": "ok",
    "20_bridge_types": "ok",
    "22_bridge_flood": "error GuestException",
    "23_microtask_flood": "limit memory_bytes",
    "25_big_result": "error UnserializableValue",
    "26_deep_json": "error UnserializableValue",
    "28_shared_state": "ok",
    "29_sparse_sort": "limit memory_bytes",
}
_PERMISSIONS: Final = {"timeout_s": 5.0, "memory_bytes": 256 * MiB}
_SLOW: Final = {"29_huge_int": 30.0} | {name: 30.0 for name, ends in JAVASCRIPT.items() if ends.startswith("limit")}
"""Deadlines of those that are to end by themselves."""
_MOUNTS: Final = "mount namespace, read-only root"
_PLACES: Final = "its places /in and /out are not there"
WITHOUT: Final = {
    "02_read_shadow": (Otherwise(_MOUNTS, "denied EACCES", "the file is there, and Landlock refuses it"),),
    "07_loopback_redis": (Otherwise(_MOUNTS, "denied ENOENT", _PLACES),),
    "13_symlink_out": (Otherwise(_MOUNTS, "error GuestException", _PLACES),),
    "14_symlink_race": (Otherwise(_MOUNTS, "error GuestException", _PLACES),),
    "16_write_ro": (
        Otherwise(_MOUNTS, "denied ENOENT", _PLACES),
        Otherwise("own uid", "denied EROFS", "the folder is the same user's, and read-only all the same"),
    ),
    "17_hardlink_ro": (Otherwise(_MOUNTS, "denied ENOENT", _PLACES),),
    "19_proc_1_root": (Otherwise(_MOUNTS, "denied EACCES", "the host's /proc is there, and Landlock refuses it"),),
    "23_disk_fill": (Otherwise(_MOUNTS, "denied EACCES", "it writes in /tmp, which is not its own"),),
    "07_wasm_grow": (Otherwise("memory cgroup", "denied", "V8 is refused the memory, and the program catches that"),),
}
"""Other endings, for want of a layer."""


def attacks(folder: str, language: str, suffix: str, endings: dict[str, str]) -> list[Attack]:
    return [
        Attack(
            name,
            language,
            (FOLDER / folder / (name + suffix)).read_text(),
            ends,
            {**_PERMISSIONS, "timeout_s": 1.0 if ends == "timeout" else _SLOW.get(name, 5.0)},
            without=WITHOUT.get(name, ()),
        )
        for name, ends in endings.items()
        if (FOLDER / folder / (name + suffix)).exists()
    ]


def alternatives(attack: Attack) -> set[str]:
    """Read the first line's word for how it may end."""
    said = _EXPECT.match(attack.code)
    assert said is not None
    return set(said[1].split("|"))


def as_seen(attack: Attack, ending: str) -> str:
    """A program that is to end well says DENIED where nothing denied it anything."""
    return "ok" if "ok" in alternatives(attack) and ending == "denied" and attack.ends == "ok" else ending


IN_PYTHON = attacks("py", "python", ".py", PYTHON) if FOLDER.is_dir() else []
IN_JAVASCRIPT = attacks("js", "javascript", ".js", JAVASCRIPT) if FOLDER.is_dir() else []


@pytest.fixture(scope="module")
def python_shooting(python_range: Range, request: pytest.FixtureRequest) -> Range:
    python_range.expect_all(selected(request, "python"))
    return python_range


@pytest.fixture(scope="module")
def v8_shooting(v8_range: Range, request: pytest.FixtureRequest) -> Range:
    v8_range.expect_all(selected(request, "javascript"))
    return v8_range


@pytest.mark.parametrize("attack", as_parameters(IN_PYTHON))
def test_python_ends_as_designed_and_harms_nothing(python_shooting: Range, attack: Attack) -> None:
    aftermath, wanted = python_shooting.aftermath(attack), attack.ends_within(python_shooting.layers)
    assert (as_seen(attack, aftermath.ending), aftermath.harm) == (wanted, []), aftermath.result


@pytest.mark.parametrize("attack", as_parameters(IN_JAVASCRIPT))
def test_javascript_ends_as_designed_and_harms_nothing(v8_shooting: Range, attack: Attack) -> None:
    aftermath, wanted = v8_shooting.aftermath(attack), attack.ends_within(v8_shooting.layers)
    assert (as_seen(attack, aftermath.ending), aftermath.harm) == (wanted, []), aftermath.result


@pytest.mark.parametrize("attack", [*IN_PYTHON, *IN_JAVASCRIPT], ids=lambda attack: f"{attack.language}-{attack.name}")
def test_our_ending_is_one_that_the_first_line_allows(attack: Attack) -> None:
    assert alternatives(attack) & _ALLOWED_BY[attack.ends.split()[0]] or attack.name in REFUSED_AT_FORK


REFUSED_AT_FORK: Final = ("22_memory_bomb_fork", "25_daemonise")
"""They expect to fork; here the fork itself is refused, and nobody catches that."""


def test_no_program_of_the_folder_is_left_out() -> None:
    named = {f"py/{name}.py" for name in PYTHON} | {f"js/{name}.js" for name in JAVASCRIPT} | {"py/47_inherited_fd.py"}
    present = {f"{path.parent.name}/{path.name}" for path in FOLDER.glob("*/*")}
    assert present - named == set()


def test_only_the_channel_is_inherited(python_range: Range) -> None:
    """47_inherited_fd calls every descriptor but pipes an escape.

    Ours has one more, number 3: its own end of a pair of unix sockets, whose
    other end is read by the host as hostile bytes (see test_forgery.py), and
    nothing else.
    """
    path = FOLDER / "py" / "47_inherited_fd.py"
    if not path.exists():
        pytest.skip("the folder does not hold it")
    aftermath = python_range.run(Attack("47_inherited_fd", "python", path.read_text(), "", dict(_PERMISSIONS)))
    assert re.fullmatch(r"escaped \"?\['socket:\[\d+\]'\]\"?", aftermath.ending), aftermath
    assert aftermath.harm == []
