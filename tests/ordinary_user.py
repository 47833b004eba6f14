"""Run a program as an ordinary user of this machine, with and without user namespaces.

Needs root to begin with. The interpreter may lie in a folder that only root
enters; the program runs in a mount namespace in which those folders are open,
and nothing of that is seen outside.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runvisor.actors.jail import kernel

UID = 65534
TESTS = Path(__file__).resolve().parent


def run_as_ordinary_user(
    arguments: Sequence[str], *, user_namespaces: bool, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments as user `UID`, who owns nothing here.

    Args:
        arguments: For the interpreter, such as ``["-c", program]``.
        user_namespaces: Whether the kernel lets that user make user namespaces.
        timeout_s: When to give up.
    """
    steps = [f"open_up {shlex.quote(str(folder))}" for folder in _closed_folders()]
    if not user_namespaces:
        steps.append("echo 0 > /proc/sys/user/max_user_namespaces")
    script = "\n".join(
        [
            "set -e",
            # An empty copy of the folder that anyone may enter, with what it held shown in its place.
            'open_up() { mount --rbind "$1" /mnt; mount -t tmpfs -o mode=755 none "$1"; '
            'for entry in /mnt/.[!.]* /mnt/*; do [ -d "$entry" ] || continue; name=$(basename "$entry"); '
            'mkdir "$1/$name"; mount --rbind "$entry" "$1/$name"; done; umount -l /mnt; }',
            *steps,
            f"exec setpriv --reuid {UID} --regid {UID} --clear-groups " + shlex.join([sys.executable, *arguments]),
        ]
    )
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        [sys.executable, __file__, "" if user_namespaces else "bounded", script],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd="/",
        env=environment,
        check=False,
    )


def _closed_folders() -> list[Path]:
    needed = {Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix), TESTS}
    folders = {folder for path in needed for folder in path.parents}
    return sorted(folder for folder in folders if not folder.stat().st_mode & 0o001)


def _enter_namespaces(*, bounded: bool) -> None:
    """Enter a mount namespace, inside a user namespace of the same users if the bound is to be ours to set."""
    if bounded:
        ready, entered = os.pipe(), os.pipe()
        parent = os.getpid()
        if os.fork() == 0:  # only the parent namespace may map every user
            os.read(entered[0], 1)
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{parent}/{name}").write_text("0 0 65536")
            os.write(ready[1], b"1")
            os._exit(0)
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(entered[1], b"1")
        os.read(ready[0], 1)
        os.wait()
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


if __name__ == "__main__":
    _enter_namespaces(bounded=sys.argv[1] == "bounded")
    os.execvp("sh", ["sh", "-c", sys.argv[2]])
