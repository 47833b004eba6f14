"""What is opened as a user's own file is nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runvisor.supervisor.private_files import open_own, private_folder, read_own


@pytest.mark.root
def test_another_users_file_is_not_read_and_its_folder_not_written_to(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"planted")
    assert read_own(file, 7) == b"planted"
    os.chown(file, 65534, 65534)
    with pytest.raises(PermissionError, match="another user's"):
        read_own(file, 7)
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(PermissionError, match="alone"):
        private_folder(tmp_path)


def test_a_pipe_with_somebody_at_its_other_end_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(PermissionError, match="no file"):
            open_own(tmp_path / "pipe", os.O_WRONLY | os.O_APPEND)
    finally:
        os.close(reader)
