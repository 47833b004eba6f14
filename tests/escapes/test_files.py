"""Files on their way in and out: links, races and odd names move nothing that was not granted."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.permissions import Filesystem
from runvisor.policies.result import Result
from tests.escapes.attack import Attack
from tests.escapes.canaries import Canaries
from tests.escapes.range import Range
from tests.standing import needs_namespaces

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    needs_namespaces,
]
_LEAVINGS = """
import os
secret = os.environ["CANARY_FILE"]
os.chdir("/out")
open("fine.txt", "w").write("fine")
os.link("fine.txt", "again.txt")
os.symlink(secret, "link.txt")
os.symlink(os.path.dirname(secret), "folder")
os.symlink("fine.txt", "inner.txt")
os.symlink("/proc/self/root" + secret, "magic.txt")
os.mkdir("deep")
os.symlink("../../.." + secret, "deep/up.txt")
open("line\\nbreak", "w").write("x")
open("..hidden", "w").write("dots")
open("\\x1b]0;title\\x07", "w").write("x")
open(b"\\xff\\xfe", "w").write("x")
os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), 60 << 20)
os.truncate(os.open("sparse too", os.O_CREAT | os.O_RDWR), 60 << 20)
os.chmod("..hidden", 0o4777)
"""
_RACE = """
import os, threading, time
secret = os.environ["CANARY_FILE"]
os.chdir("/out")
os.mkdir("real")
open("real/secret.txt", "w").write("mine")
os.symlink(os.path.dirname(secret), "linked")
def swap():
    while True:
        for one, other in (("real", "place"), ("place", "real"), ("linked", "place"), ("place", "linked")):
            try:
                os.rename(one, other)
            except OSError:
                pass
threading.Thread(target=swap, daemon=True).start()
time.sleep(0.05)
"""


def run(shooting: Range, code: str, **permissions: Any) -> Result:
    attack = Attack("files", "python", code, "ok", {"timeout_s": 5.0, **permissions})
    aftermath = shooting.run(attack)
    assert (aftermath.ending, aftermath.harm) == ("ok", []), aftermath.result.error
    return aftermath.result


def test_only_regular_files_with_plain_names_are_collected(python_range: Range, canaries: Canaries) -> None:
    result = run(python_range, _LEAVINGS)
    kept = {name: bytes(data) for name, data in result.files.items() if not name.startswith("sparse")}
    assert kept == {"fine.txt": b"fine", "again.txt": b"fine", "..hidden": b"dots"}
    assert sum(map(len, result.files.values())) <= 64 << 20
    assert len(result.refused_files) >= 6
    assert canaries.leaked(repr(kept), repr(result.refused_files)) == []


def test_a_folder_swapped_for_a_link_while_the_guest_ends_shows_nothing(
    python_range: Range, canaries: Canaries
) -> None:
    for _ in range(5):
        result = run(python_range, _RACE)
        assert set(map(bytes, result.files.values())) <= {b"mine"}
        assert canaries.leaked(repr(dict(result.files))) == []


@contextmanager
def swapping(path: Path, target: Path) -> Iterator[None]:
    """Make a path now a file, now a link to a target, as fast as it goes."""
    stop = threading.Event()

    def swap() -> None:
        spare = path.parent / ".spare"
        while not stop.is_set():
            spare.symlink_to(target)
            spare.replace(path)
            spare.write_text("harmless")
            spare.replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def granted(tmp_path: Path) -> Path:
    """A folder of the host that is granted; opened to everybody."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o055)
    (tmp_path / "plain.txt").write_text("plain")
    return tmp_path


def test_a_staged_pattern_takes_no_link(python_range: Range, canaries: Canaries, granted: Path) -> None:
    (granted / "link.txt").symlink_to(canaries.secret)
    (granted / "folder.txt").symlink_to(canaries.folder)
    code = f"import os\nshown = sorted(os.listdir({str(granted)!r}))\nshown"
    result = run(python_range, code, filesystem=Filesystem(read=(f"{granted}/*.txt",)))
    assert result.value == ["plain.txt"]


def test_a_link_that_appears_while_a_pattern_is_staged_is_not_followed(
    python_range: Range, canaries: Canaries, granted: Path
) -> None:
    read = f"open({str(granted / 'raced.txt')!r}).read() if os.path.exists({str(granted / 'raced.txt')!r}) else ''"
    with swapping(granted / "raced.txt", canaries.secret):
        for _ in range(10):
            result = run(python_range, f"import os\n{read}", filesystem=Filesystem(read=(f"{granted}/*.txt",)))
            assert result.value in ("", "harmless")


def test_what_is_bound_read_only_cannot_be_changed(python_range: Range, granted: Path) -> None:
    code = f"""
import os
refused = []
for action in (
    lambda: open({str(granted / "plain.txt")!r}, "a"),
    lambda: open({str(granted / "new.txt")!r}, "w"),
    lambda: os.unlink({str(granted / "plain.txt")!r}),
    lambda: os.chmod({str(granted)!r}, 0o777),
    lambda: os.link({str(granted / "plain.txt")!r}, "/out/x"),
):
    try:
        action()
    except OSError:
        refused.append(1)
len(refused)
"""
    assert run(python_range, code, filesystem=Filesystem(read=(f"{granted}/**",))).value == 5
    assert [entry.name for entry in granted.iterdir()] == ["plain.txt"]


def test_a_link_left_where_files_may_be_written_reaches_nothing_on_the_host(
    python_range: Range, canaries: Canaries, granted: Path
) -> None:
    target = granted / "written"
    target.mkdir()
    (target / "trap.txt").symlink_to(canaries.secret)
    code = f"""
import os
os.chdir({str(target)!r})
open("good.txt", "w").write("good")
for name in ("trap.txt", "other.txt"):
    if os.path.lexists(name):
        os.unlink(name)
open("trap.txt", "w").write("through the link")
os.symlink(os.environ["CANARY_FILE"], "other.txt")
os.symlink("/etc", "etc")
open("unmatched.bin", "w").write("x")
"""
    result = run(python_range, code, filesystem=Filesystem(write=(f"{target}/*.txt",)))
    assert canaries.secret.read_text() == canaries.tokens["file"]
    assert (target / "good.txt").read_text() == "good"
    assert not (target / "trap.txt").is_symlink()  # replaced, not followed
    assert sorted(entry.name for entry in target.iterdir()) == ["good.txt", "trap.txt"]
    assert result.refused_files != ()


def test_a_link_on_the_way_to_a_granted_file_is_refused(python_range: Range, canaries: Canaries, granted: Path) -> None:
    from runvisor.policies.errors import RunvisorError

    (granted / "way").symlink_to(canaries.folder)
    attack = Attack(
        "way", "python", "1", "ok", {"filesystem": Filesystem(read=(f"{granted}/way/secret.txt",)), "timeout_s": 5.0}
    )
    with pytest.raises(RunvisorError, match="link"):
        python_range.run(attack)
    assert canaries.touched() == []
