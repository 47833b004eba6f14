"""The host side of the imports: which function of ours answers which of WASI's."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.fastpath import VALUE_BYTES, OutOfBounds
from runvisor.actors.wasm.hostcalls import caller_memory, define_function
from runvisor.actors.wasm.wasi import basics, files, network, paths, polling
from runvisor.actors.wasm.wasi.abi import FUNCTIONS, MODULE, Ended, Errno, Failure, errno_of
from runvisor.actors.wasm.wasi.network import WEB_FUNCTIONS, WEB_MODULE
from runvisor.actors.wasm.wasi.world import World

if TYPE_CHECKING:
    import wasmtime


class Wasi:
    """The host side of the imports, shared by all runs of an engine process.

    A run is known by the thread it runs in: `enter` before it, `leave` after.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._worlds: dict[int, World] = {}

    def enter(self, world: World) -> None:
        """Let the calling thread's run see this world."""
        world.deadlines = self.deadlines
        self._worlds[threading.get_ident()] = world

    def leave(self) -> None:
        """End what `enter` began, and close what the run has open."""
        world = self._worlds.pop(threading.get_ident(), None)
        if world is not None:
            world.close()

    def define(self, linker: wasmtime.Linker) -> None:
        """Define every function of preview 1, and those for HTTP, in a linker."""
        import wasmtime

        kinds = {"i": wasmtime.ValType.i32, "l": wasmtime.ValType.i64}
        for module, functions in ((MODULE, FUNCTIONS), (WEB_MODULE, WEB_FUNCTIONS)):
            for name, shape in functions.items():
                returns = [] if name == "proc_exit" else [wasmtime.ValType.i32()]
                kind = wasmtime.FuncType([kinds[letter]() for letter in shape], returns)
                define_function(linker, module, name, kind, self._bind(name, shape))

    def _bind(self, name: str, shape: str) -> Callable[[int, bytes], int | None]:
        function = (_WITH_MEMORY | _WITHOUT_MEMORY)[name]
        needs_memory = name in _WITH_MEMORY
        unpack = struct.Struct("<" + "".join("I12x" if letter == "i" else "Q8x" for letter in shape)).unpack
        size = VALUE_BYTES * len(shape)
        worlds = self._worlds
        thread = threading.get_ident

        def call(caller: int, raw: bytes) -> int | None:
            try:
                if needs_memory:
                    return function(worlds[thread()], caller_memory(caller), *unpack(raw[:size]))
                return function(worlds[thread()], *unpack(raw[:size]))
            except Failure as failure:
                return failure.errno
            except OSError as error:
                return errno_of(error)
            except OutOfBounds:
                return Errno.FAULT
            except Ended:
                return None

        return call


def _no_socket(world: World, number: int, *_: int) -> int:
    """Answer for a socket: nothing is one."""
    world.table.get(number)
    return Errno.NOTSOCK


_WITH_MEMORY: Final[dict[str, Callable[..., int]]] = {
    function.__name__: function
    for function in (
        basics.args_get,
        basics.args_sizes_get,
        basics.environ_get,
        basics.environ_sizes_get,
        basics.clock_res_get,
        basics.clock_time_get,
        basics.random_get,
        files.fd_fdstat_get,
        files.fd_filestat_get,
        files.fd_pread,
        files.fd_prestat_get,
        files.fd_prestat_dir_name,
        files.fd_pwrite,
        files.fd_read,
        files.fd_readdir,
        files.fd_seek,
        files.fd_tell,
        files.fd_write,
        paths.path_create_directory,
        paths.path_filestat_get,
        paths.path_filestat_set_times,
        paths.path_link,
        paths.path_open,
        paths.path_readlink,
        paths.path_remove_directory,
        paths.path_rename,
        paths.path_symlink,
        paths.path_unlink_file,
        polling.poll_oneoff,
        network.http_error,
        network.http_head,
        network.http_read,
        network.http_request,
    )
}
_WITHOUT_MEMORY: Final[dict[str, Callable[..., int]]] = {
    function.__name__: function
    for function in (
        basics.proc_exit,
        basics.proc_raise,
        basics.sched_yield,
        files.fd_advise,
        files.fd_allocate,
        files.fd_close,
        files.fd_datasync,
        files.fd_fdstat_set_flags,
        files.fd_fdstat_set_rights,
        files.fd_filestat_set_size,
        files.fd_filestat_set_times,
        files.fd_renumber,
        files.fd_sync,
        network.http_close,
    )
} | {name: _no_socket for name in FUNCTIONS if name.startswith("sock_")}
"""What has a meaning without the guest's memory."""
assert FUNCTIONS.keys() | WEB_FUNCTIONS.keys() == _WITH_MEMORY.keys() | _WITHOUT_MEMORY.keys()
