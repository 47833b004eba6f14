"""An object file with a line table, out of the very module that bcc turned into instructions.

bcc hands out instructions without their lines. But it prints its optimised module on
request, and the LLVM inside it makes an object file of that: the same instructions but
for registers and some order, and a line table beside them. Used when a program is
refused, to say where.

Source: llvm-c/Core.h, IRReader.h, TargetMachine.h.
"""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any, Final

_TRIPLE: Final = b"bpf-pc-linux"
_MODULE: Final = b"; ModuleID = "
_OPTIMISED, _DEFAULT, _OBJECT = 2, 0, 1
PRINT_MODULE: Final = 1
"""bcc's debug flag for printing the module to standard output."""

_Pointer = ctypes.c_void_p


def flush_output(bcc: ModuleType) -> None:
    """Have LLVM write what it holds back of its standard output.

    Raises:
        AttributeError: This bcc does not let its LLVM be called.
    """
    lib = bcc.libbcc.lib
    output = _function(lib, "_ZN4llvm4outsEv", _Pointer)()
    _function(lib, "_ZN4llvm11raw_ostream14flush_nonemptyEv", None, _Pointer)(output)


def object_of(bcc: ModuleType, printed: bytes) -> bytes:
    """Return an object file of the last module in what bcc printed.

    Raises:
        AttributeError: This bcc does not let its LLVM be called.
        ValueError: There is no module, or LLVM refuses it.
    """
    lib = bcc.libbcc.lib
    at = printed.rfind(_MODULE)
    if at < 0:
        raise ValueError("no module was printed")
    text = printed[at:]
    said = ctypes.c_char_p()
    for part in ("TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser"):
        _function(lib, f"LLVMInitializeBPF{part}", None)()
    context = _function(lib, "LLVMContextCreate", _Pointer)()
    copy = _function(
        lib, "LLVMCreateMemoryBufferWithMemoryRangeCopy", _Pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p
    )
    module, target, made = _Pointer(), _Pointer(), _Pointer()
    parse = _function(lib, "LLVMParseIRInContext", ctypes.c_int, _Pointer, _Pointer, _Pointer, _Pointer)
    find = _function(lib, "LLVMGetTargetFromTriple", ctypes.c_int, ctypes.c_char_p, _Pointer, _Pointer)
    machine_of = _function(
        lib,
        "LLVMCreateTargetMachine",
        _Pointer,
        *(_Pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    )
    emit = _function(
        lib,
        "LLVMTargetMachineEmitToMemoryBuffer",
        ctypes.c_int,
        *(_Pointer, _Pointer, ctypes.c_int, _Pointer, _Pointer),
    )
    if parse(context, copy(text, len(text), b"module"), ctypes.byref(module), ctypes.byref(said)):
        raise ValueError(f"LLVM does not read what it printed: {said.value!r}")
    if find(_TRIPLE, ctypes.byref(target), ctypes.byref(said)):
        raise ValueError(f"LLVM has no target for BPF: {said.value!r}")
    machine = machine_of(target, _TRIPLE, b"", b"", _OPTIMISED, _DEFAULT, _DEFAULT)
    if emit(machine, module, _OBJECT, ctypes.byref(said), ctypes.byref(made)):
        raise ValueError(f"LLVM makes no object: {said.value!r}")
    start = _function(lib, "LLVMGetBufferStart", _Pointer, _Pointer)(made)
    return ctypes.string_at(start, _function(lib, "LLVMGetBufferSize", ctypes.c_size_t, _Pointer)(made))


def _function(lib: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(lib, name)  # found among the libraries that bcc's own is linked with
    function.restype, function.argtypes = result, arguments
    return function
