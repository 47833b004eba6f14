"""The probe tries, and names what is missing."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.ebpf import bcc_package, bpf, btf, probe
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.policies.errors import (
    SpawnFailed,
)


@pytest.mark.kernel
def test_the_probe_says_what_it_found(runtime: EbpfRuntime) -> None:
    found = runtime.probe()
    assert found.available
    assert "bcc" in found.detail
    assert "\n" not in found.detail


@pytest.mark.kernel
def test_the_probe_names_what_is_missing_and_how_to_get_it(
    runtime: EbpfRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(bcc_package, "folder", lambda: None)
        assert "apt-get install" in probe.probe_ebpf().remedy
        with pytest.raises(SpawnFailed, match="bcc"):
            EbpfRuntime().start()

    def refused(*_: Any) -> int:
        raise OSError(errno.EPERM, "bpf map create")

    with monkeypatch.context() as patched:
        patched.setattr(bpf, "create_array", refused)
        assert "CAP_BPF" in probe.probe_ebpf().remedy
    with monkeypatch.context() as patched:
        patched.setattr(probe, "has_may_goto", lambda: False)
        assert "bpf_iter_num" in probe.probe_ebpf().detail or not btf.VMLINUX.exists()
        patched.setattr(btf, "VMLINUX", tmp_path / "nothing")
        assert "CONFIG_DEBUG_INFO_BTF" in probe.probe_ebpf().remedy
        (tmp_path / "nothing").write_bytes(b"an old kernel")
        assert not probe.probe_ebpf().available


def test_pypis_package_of_the_same_name_is_not_taken_for_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("lattice = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bcc_package, "_DEBIAN_FOLDER", str(tmp_path / "none"))
    assert bcc_package.folder() is None
    (tmp_path / "bcc" / "libbcc.py").write_text("")
    assert bcc_package.folder() == tmp_path / "bcc"
