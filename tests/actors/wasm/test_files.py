"""Files that a task brings or is granted, as a WASI program sees them: what it reaches, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.compilers import ziglang
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.errors import DiskLimitExceeded, GuestException, InvalidPermissions
from runvisor.policies.permissions import Filesystem, MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(ziglang.find() is None, reason=ziglang.REMEDY),
    pytest.mark.skipif(find_standing() is Standing.PLAIN, reason="without namespaces nothing can be granted"),
]

FILER = Path(__file__).with_name("filer.c").read_text()
DENIED = "Permission denied"
OUT_OF_REACH = "Capabilities insufficient"


Files = Callable[..., Result]


@pytest.fixture
def denials(runtime: WasmRuntime) -> Any:
    said: list[tuple[str, Mapping[str, Any]]] = []
    before = runtime.on_denial
    runtime.on_denial = lambda principal, record: said.append((principal, record))
    yield said
    runtime.on_denial = before


@pytest.fixture
def filer(runtime: WasmRuntime) -> Files:
    def run(
        *arguments: str, read: tuple[str, ...] = (), write: tuple[str, ...] = (), folder: str = "", **options: Any
    ) -> Result:
        files = options.pop("files", {})
        permissions = Permissions(filesystem=Filesystem(read, write), **options)
        task = Task(FILER, "c", {"args": list(arguments)}, permissions, Trust.VERIFIED, "job", files, folder)
        return runtime.execute(task, "module", Grant("tester", Trust.VERIFIED, permissions), Watch())

    return run


def lines(result: Result) -> list[str]:
    assert result.error is None, (result.error, result.stdout, result.stderr)
    return result.stdout.splitlines()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("1,2")
    (folder / "secret.txt").write_text("secret")
    for place in (folder, *folder.parents):
        if place.stat().st_uid == Path.cwd().stat().st_uid and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o011)
    return folder


def test_files_go_in_and_come_out(filer: Files) -> None:
    result = filer("read", "/in/deep/a", "write", "/out/b/c", "x", "mkdir", "/out/b", "write", "/out/b/c", "hello",
                   files={"deep/a": b"hi"})  # fmt: skip
    assert lines(result) == ["hi", "No such file or directory", "ok", "ok"]
    assert result.files == {"b/c": b"hello"}
    assert result.isolation.shared_with == ()


def test_what_goes_in_cannot_be_changed(filer: Files) -> None:
    result = filer(
        *("append", "/in/a", "x", "rm", "/in/a", "write", "/in/new", "x", "mv", "/in/a", "/out/a"),
        *("ln", "/in/a", "/out/a", "symlink", "a", "/in/l", "touch", "/in/a", "mkdir", "/in/d", "read", "/in/a"),
        files={"a": b"as it was"},
    )
    assert lines(result) == [DENIED] * 8 + ["as it was"]
    assert result.files == {}


def test_the_scratch_is_private_and_gone_with_the_run(filer: Files) -> None:
    assert lines(filer("write", "/tmp/x", "1", "read", "x", "list", "/", files={"a": b""})) == ["ok", "1", "x"]
    assert lines(filer("read", "/tmp/x", files={"a": b""})) == ["No such file or directory"]


def test_without_files_there_is_no_folder_at_all(filer: Files) -> None:
    result = filer("name", "3", "read", "/in/a", "write", "/tmp/x", "1", "open", "3", "x")
    assert lines(result)[0] == "Bad file descriptor"
    assert lines(result)[3] == "Bad file descriptor"
    assert not {"ok", "opened"} & set(lines(result))
    assert result.isolation.shared_with


def test_a_pattern_grants_what_it_matches_and_nothing_beside(filer: Files, data: Path, denials: Any) -> None:
    result = filer("read", f"{data}/a.csv", "read", f"{data}/secret.txt", "stat", f"{data}/secret.txt",
                   "append", f"{data}/a.csv", "x", "list", str(data), read=(f"{data}/*.csv",))  # fmt: skip
    assert lines(result) == ["1,2", DENIED, DENIED, DENIED, "a.csv"]
    assert [(principal, record["operation"], record["path"]) for principal, record in denials] == [
        ("tester", "path_open", f"{data}/secret.txt"),
        ("tester", "path_filestat_get", f"{data}/secret.txt"),
        ("tester", "path_open", f"{data}/a.csv"),
    ]
    assert all(record["label"] == "job" and record["reason"] for _, record in denials)
    assert "filesystem" in result.isolation.limits_enforced


def test_a_whole_folder_is_shown_read_only(filer: Files, data: Path) -> None:
    result = filer("list", str(data), "read", f"{data}/secret.txt", "write", f"{data}/new", "x", "rm", f"{data}/a.csv",
                   read=(f"{data}/**",))  # fmt: skip
    assert lines(result) == ["a.csv secret.txt", "secret", DENIED, DENIED]
    assert sorted(path.name for path in data.iterdir()) == ["a.csv", "secret.txt"]


def test_one_file_is_granted_alone(filer: Files, data: Path) -> None:
    result = filer("read", f"{data}/a.csv", "read", f"{data}/secret.txt", "list", str(data), read=(f"{data}/a.csv",))
    assert lines(result)[::2] == ["1,2", "a.csv"]
    assert lines(result)[1] in (DENIED, "No such file or directory")  # in the scratch, if the folder lies in /tmp


def test_relative_paths_are_meant_from_the_tasks_folder(filer: Files, data: Path) -> None:
    out = data.parent / "out"
    out.mkdir()
    result = filer("read", "data/a.csv", "write", "out/sum", "3", "list", ".",
                   read=(f"{data}/*.csv",), write=(f"{out}/**",), folder=str(data.parent))  # fmt: skip
    assert lines(result) == ["1,2", "ok", "data out"]
    assert result.refused_files == ()
    assert (out / "sum").read_text() == "3"


def test_what_is_written_reaches_the_host_only_after_a_good_end(filer: Files, data: Path) -> None:
    write = (f"{data}/*.out",)
    assert lines(filer("write", f"{data}/a.out", "1", write=write)) == ["ok"]
    failed = filer("write", f"{data}/b.out", "1", "nonsense", write=write)
    assert isinstance(failed.error, GuestException)
    assert sorted(path.name for path in data.glob("*.out")) == ["a.out"]


def test_a_name_that_may_be_read_is_not_one_that_may_be_written(filer: Files, data: Path) -> None:
    """Both lie in one folder of the scratch, where only the guard tells them apart."""
    grant: dict[str, Any] = {"read": (f"{data}/*.csv",), "write": (f"{data}/*.out",)}
    result = filer("append", f"{data}/a.csv", "x", "ln", f"{data}/a.csv", f"{data}/b.out", "mv", f"{data}/a.csv",
                   f"{data}/b.out", "symlink", "a.csv", f"{data}/l.out", "append", f"{data}/l.out", "x",
                   "rm", f"{data}/a.csv", "touch", f"{data}/a.csv", "read", f"{data}/l.out", **grant)  # fmt: skip
    assert lines(result) == [DENIED, DENIED, DENIED, "ok", DENIED, DENIED, DENIED, "1,2"]
    assert (data / "a.csv").read_text() == "1,2"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("../a", OUT_OF_REACH),
        ("x/../../a", OUT_OF_REACH),
        ("/etc/passwd", OUT_OF_REACH),
        ("up/etc/passwd", OUT_OF_REACH),
        ("l/../../../etc/passwd", OUT_OF_REACH),
        ("loop", "Symbolic link loop"),
        ("x/./../a", "opened"),
    ],
)
def test_no_path_leads_out_of_its_folder(filer: Files, denials: Any, path: str, answer: str) -> None:
    """Descriptor 5 is /out: a link may stand there, but none is followed upwards."""
    result = filer(
        *("name", "5", "mkdir", "/out/x", "write", "/out/a", "1", "symlink", "..", "/out/up", "symlink", "x", "/out/l"),
        *("symlink", "loop", "/out/loop", "open", "5", path),
        files={"a": b"1"},
    )
    assert lines(result) == ["/out", "ok", "ok", "ok", "ok", "ok", answer]
    assert len(denials) == (answer == OUT_OF_REACH)


def test_no_link_to_an_absolute_path_is_made(filer: Files, denials: Any) -> None:
    result = filer("symlink", "/etc/passwd", "/out/l", "readlink", "/out/l", files={"a": b""})
    assert lines(result) == [OUT_OF_REACH, "No such file or directory"]
    assert [record["operation"] for _, record in denials] == ["path_symlink"]


def test_a_link_that_lies_in_a_granted_folder_is_not_followed_out(filer: Files, data: Path) -> None:
    (data / "passwd").symlink_to("/etc/passwd")
    (data / "up").symlink_to("../../..")
    result = filer("read", f"{data}/passwd", "list", f"{data}/up", read=(f"{data}/**",))
    assert lines(result) == [OUT_OF_REACH, OUT_OF_REACH]


def test_links_left_in_out_do_not_come_out(filer: Files) -> None:
    result = filer("write", "/out/a", "1", "symlink", "a", "/out/l", "read", "/out/l", files={"a": b""})
    assert lines(result) == ["ok", "ok", "1"]
    assert result.files == {"a": b"1"}
    assert len(result.refused_files) == 1


def test_the_disk_is_as_large_as_granted(filer: Files) -> None:
    small = lines(filer("fill", "/tmp/x", "3", files={"a": b""}, disk_bytes=2 * MiB))
    assert small in (["No space left on device"], ["File too large"])
    assert lines(filer("fill", "/tmp/x", "3", files={"a": b""}, disk_bytes=8 * MiB)) == ["ok"]


def test_more_than_the_disk_is_refused_before_it_runs(filer: Files, data: Path) -> None:
    (data / "big.bin").write_bytes(bytes(3 * MiB))
    with pytest.raises(DiskLimitExceeded, match="do not fit"):
        filer("list", "/", read=(f"{data}/*.bin",), disk_bytes=2 * MiB)


def test_a_grant_of_what_is_not_there_is_refused_by_name(filer: Files, data: Path) -> None:
    with pytest.raises(InvalidPermissions, match="No such file"):
        filer("list", "/", read=(f"{data}/nothing/**",))
    assert lines(filer("stat", "/in/a", files={"a": b"123"})) == ["3"]


def test_a_flood_of_refusals_is_cut(filer: Files, denials: Any) -> None:
    result = filer(*["mkfd", "4", "x"] * 300, files={"a": b""})
    assert lines(result) == [DENIED] * 300
    assert len(denials) == 100


def test_many_descriptors_are_refused_and_given_back(filer: Files) -> None:
    opened = lines(filer("write", "/out/a", "1", *["open", "5", "a"] * 600, files={"a": b""}))
    assert opened.count("opened") > 100
    assert opened[-1] == "No file descriptors available"
