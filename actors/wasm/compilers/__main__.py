"""``python -m runvisor.actors.wasm.compilers [--all]``: build the prebuilt libraries now, not at the first task.

Without ``--all``, only the C library, which C and Zig need.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console

from runvisor.actors.user_cache import cache_folder
from runvisor.actors.wasm.compilers import go, ziglang
from runvisor.actors.wasm.compilers.sysroot import Sysroot
from runvisor.policies.errors import RunvisorError


def main(arguments: Sequence[str]) -> int:
    """Build what is missing, with a line for each library; return 1 if one of them failed."""
    if set(arguments) - {"--all"}:
        print("usage: python -m runvisor.actors.wasm.compilers [--all]", file=sys.stderr)
        return 2
    wanted: list[tuple[Sysroot, str]] = [(ziglang.LIBC, "" if ziglang.find() else ziglang.REMEDY)]
    if "--all" in arguments:
        wanted += [(sysroot, "" if ziglang.find() else ziglang.REMEDY) for sysroot in (ziglang.LIBCXX, ziglang.ZIR)]
        wanted.append((go.STD, "" if go.find() else go.REMEDY))
    console = Console(soft_wrap=True, highlight=False)
    failed = False
    for number, (sysroot, remedy) in enumerate(wanted, 1):
        place = f"[{number}/{len(wanted)}] {sysroot.title}"
        if remedy:
            console.print(f"{place}: left out; its compiler comes with {remedy}", markup=False)
            continue
        try:
            if sysroot.folder(may_build=False) is not None:
                console.print(f"{place}: there already", markup=False)
                continue
            began = time.monotonic()
            title = f"{place}: building, about {sysroot.typical_s:.0f} s ..."
            if console.is_terminal:
                with console.status(title.replace("[", "\\[")):
                    sysroot.folder()
            else:
                console.print(title, markup=False)
                sysroot.folder()
            console.print(f"{place}: built in {time.monotonic() - began:.0f} s", markup=False)
        except RunvisorError as error:
            failed = True
            console.print(f"{place}: {error}", markup=False)
    console.print(f"all of it lies in {cache_folder()}", markup=False)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
