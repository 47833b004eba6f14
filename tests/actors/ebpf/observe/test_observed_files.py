"""Files are opened as the observed process would, and with its rights."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runvisor.actors.ebpf.observe import bounded_opening
from runvisor.actors.ebpf.observe.observed_files import ObservedFile, open_observed
from runvisor.actors.jail import kernel
from runvisor.actors.jail.capabilities import limit_effective
from runvisor.policies.errors import ConfigError
from tests.actors.ebpf.observe.known import go, known_process, wait_until

pytestmark = [pytest.mark.root]

NOBODY, GROUP = 65534, 4321
AS_NOBODY = f"os.setgroups([{GROUP}]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
NO_CAPABILITIES = "import ctypes\nctypes.CDLL(None).capset((0x20080522).to_bytes(8, 'little'), bytes(24))\n"
OWN_USER_NAMESPACE = f"import ctypes\nctypes.CDLL(None).unshare({kernel.CLONE_NEWUSER})\n"
IN_OPEN = 0x20
WAIT = "sys.stdout.write('ready\\n'), sys.stdout.flush(), sys.stdin.readline()\n"


@contextmanager
def ready(code: str, *arguments: str) -> Iterator[int]:
    """A process that has done something, and waits."""
    with known_process(code + WAIT, *arguments) as process:
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that everybody may enter."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    return tmp_path


def file(path: Path, mode: int, group: int = 0) -> str:
    path.write_bytes(b"content")
    os.chown(path, 0, group)
    path.chmod(mode)
    return str(path)


def content(opened: ObservedFile) -> bytes:
    with os.fdopen(opened.fd, "rb") as stream:
        return stream.read()


def test_a_file_is_opened_only_if_the_process_may_read_it(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with ready(AS_NOBODY) as nobody, ready("") as root:
        for path in (file(folder / "free", 0o644), file(folder / "shared", 0o640, GROUP)):
            assert content(open_observed(nobody, path)) == b"content"
        for path in (file(folder / "own", 0o600), file(folder / "others", 0o640, 99), file(closed / "in", 0o644)):
            with pytest.raises(ConfigError, match="Permission denied"):
                open_observed(nobody, path)
            assert content(open_observed(root, path)) == b"content"


@pytest.mark.parametrize("code", [NO_CAPABILITIES, OWN_USER_NAMESPACE], ids=["no capabilities", "user namespace"])
def test_uid_0_alone_opens_nothing(folder: Path, code: str) -> None:
    path = file(folder / "own", 0o600)
    os.chown(path, NOBODY, NOBODY)
    with ready(code) as powerless, ready("") as root:
        with pytest.raises(ConfigError, match="Permission denied"):
            open_observed(powerless, path)
        assert content(open_observed(root, path)) == b"content"


def test_a_thread_that_gave_up_its_rights_cannot_be_traced_by_whoever_has_as_few() -> None:
    text, seen = Path("/proc/thread-self/status"), dict[str, str]()

    def work() -> None:
        before = text.read_text()
        limit_effective(0)
        after = text.read_text()
        seen.update((line[:6], line[8:]) for line in after.splitlines() if line.startswith("Cap"))
        assert f"CapPrm:\t{seen['CapPrm']}" in before

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()
    assert int(seen["CapEff"], 16) == 0
    assert int(seen["CapPrm"], 16) != 0


def test_the_rights_of_this_process_stay(folder: Path) -> None:
    before = (os.getresuid(), os.getresgid(), os.getgroups(), kernel.prctl(kernel.PR_GET_DUMPABLE))
    with ready(AS_NOBODY) as nobody:
        os.close(open_observed(nobody, file(folder / "free", 0o644)).fd)
    assert (os.getresuid(), os.getresgid(), os.getgroups(), kernel.prctl(kernel.PR_GET_DUMPABLE)) == before
    assert Path(file(folder / "own", 0o600)).read_bytes() == b"content"
    assert Path("/proc/self/status").read_text().count("Uid:\t0\t0\t0\t0") == 1


def test_a_path_leads_where_it_leads_the_process(folder: Path) -> None:
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    file(root / "etc" / "hostname", 0o644)
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "above").symlink_to("../../../../../../../etc/hostname")
    with ready("os.chroot(sys.argv[1])\n", str(root)) as inside:
        for path in ("/etc/hostname", "/absolute", "/above", "/../etc/hostname"):
            assert content(open_observed(inside, path)) == b"content"
        with pytest.raises(ConfigError, match="No such file"):
            open_observed(inside, "/etc/passwd")


def test_what_is_no_file_is_told_and_nobody_waits_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with ready("") as process:
        for path in (str(folder), str(folder / "pipe"), "/dev/null"):
            with pytest.raises(ConfigError, match="no regular file"):
                open_observed(process, path)
        with pytest.raises(ConfigError, match="cannot be opened"):
            open_observed(process, f"/proc/{process}/exe")
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_observed(1 << 22, "/etc/hostname")


@contextmanager
def openings(path: Path) -> Iterator[Callable[[], bool]]:
    """Tell whether somebody opens a file; see inotify(7)."""
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        assert libc.inotify_add_watch(fd, bytes(path), IN_OPEN) >= 0

        def opened() -> bool:
            try:
                return bool(os.read(fd, 4096))
            except BlockingIOError:
                return False

        yield opened
    finally:
        os.close(fd)


def test_a_device_is_never_opened_neither_by_its_path_nor_as_mapped(folder: Path) -> None:
    device = folder / "zero"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    mapping = "import mmap\nmapped = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096, mmap.MAP_PRIVATE, 5)\n"
    with ready(mapping, str(device)) as process, openings(device) as opened:
        for name in ("zero", str(device)):
            with pytest.raises(ConfigError, match="no regular file"):
                open_observed(process, name)
            assert not opened(), name
        os.close(os.open(device, os.O_RDONLY))
        assert opened()


@contextmanager
def silent_file_system(folder: Path) -> Iterator[Path]:
    """A file system whose program never answers; see fuse(4)."""
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel has no FUSE")
    folder.mkdir()
    with open("/dev/fuse", "r+b", buffering=0) as program:  # whose end ends all waiting for it
        kernel.mount("silent", str(folder), "fuse", 0, f"fd={program.fileno()},rootmode=40000,user_id=0,group_id=0")
        guard = threading.Timer(30, program.close)
        guard.start()
        try:
            yield folder
        finally:
            guard.cancel()
            kernel.unmount(str(folder))
    assert wait_until(lambda: "observed-file" not in {thread.name for thread in threading.enumerate()})


def test_a_file_system_that_does_not_answer_is_told_and_keeps_nobody_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = file(folder / "free", 0o644)
    with ready("") as process, silent_file_system(folder / "silent") as silent, ThreadPoolExecutor(1) as waiting:
        with monkeypatch.context() as patch:
            patch.setattr(bounded_opening, "OPENING_S", 0.2)
            first = waiting.submit(open_observed, process, str(silent / "file"))
            assert wait_until(lambda: "observed-file" in {thread.name for thread in threading.enumerate()})
        assert content(open_observed(process, free)) == b"content"
        with pytest.raises(ConfigError, match="has not answered"):
            first.result()
        assert kernel.prctl(kernel.PR_GET_DUMPABLE) == 1


def test_a_mapped_file_is_the_one_that_is_mapped_whatever_has_its_path_now(folder: Path) -> None:
    library = folder / "libmine.so.1"
    shutil.copy(next(Path("/usr/lib").glob("*-linux-gnu/libm.so.6")), library)
    whole = library.read_bytes()
    with ready("import ctypes\nctypes.CDLL(sys.argv[1])\n", str(library)) as process:
        library.unlink()
        file(library, 0o644)
        for name in ("libmine", "libmine.so.1"):
            opened = open_observed(process, name)
            assert (opened.path, content(opened)) == (str(library), whole)


def test_two_files_of_one_name_are_told_apart_by_their_paths(folder: Path) -> None:
    source = next(Path("/usr/lib").glob("*-linux-gnu/libm.so.6"))
    paths = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        paths.append(shutil.copy(source, folder / name / "libmine.so"))
    with ready("import ctypes\nfor path in sys.argv[1:]: ctypes.CDLL(path)\n", *map(str, paths)) as process:
        with pytest.raises(ConfigError, match="several files called libmine") as caught:
            open_observed(process, "libmine")
        assert all(str(path) in caught.value.remedy for path in paths)
