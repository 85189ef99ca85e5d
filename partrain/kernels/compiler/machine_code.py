"""A kernel's machine code for one signature, as the cache holds it, and how it becomes a function of Python.

Loading needs neither Numba nor LLVM: it copies the code into memory, writes addresses into it, and makes that memory
executable.
"""

from __future__ import annotations

import ctypes
import functools
import json
import mmap
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Kinds of relocations: a 64-bit address; its 16 bits number k = 0 … 3 in an instruction of arm64 (MOVE_WIDE + k).
ABSOLUTE, MOVE_WIDE = 0, 1

_METH_FASTCALL = 0x0080


class Relocation(NamedTuple):
    """An address that the code holds.

    Attributes
    ----------
    kind : ABSOLUTE or MOVE_WIDE + k.
    place : where it is in the code.
    symbol : what it is the address of; None: the code itself.
    addend : is added to it.
    """

    kind: int
    place: int
    symbol: str | None
    addend: int


class _MethodDefinition(ctypes.Structure):
    """PyMethodDef of Python's C API."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)
    )  # fmt: skip


class LoadedCode(NamedTuple):
    """Machine code in memory.

    Attributes
    ----------
    call : the function of Python.
    address : the address of the kernel itself, with Numba's calling convention.
    owners : what must live as long as the code is called.
    """

    call: Callable[..., Any]
    address: int
    owners: tuple[Any, ...]


class MachineCode(NamedTuple):
    """Linked machine code.

    Attributes
    ----------
    code : instructions and constants.
    relocations : the addresses in them that loading writes.
    entry, kernel : where the function that Python calls and the kernel itself begin.
    """

    code: bytes
    relocations: tuple[Relocation, ...]
    entry: int
    kernel: int

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        return json.dumps([self.entry, self.kernel, self.relocations]).encode() + b"\n" + self.code

    @classmethod
    def from_bytes(cls, content: bytes) -> MachineCode:
        """Return what `to_bytes` made bytes of.

        Raises
        ------
        ValueError, TypeError
            The content is something else.
        """
        head, _, code = content.partition(b"\n")
        entry, kernel, relocations = json.loads(head)
        return cls(code, tuple(Relocation(*relocation) for relocation in relocations), entry, kernel)

    def load(self, name: str) -> LoadedCode:
        """Load it into this process, with a name for the function.

        Raises
        ------
        OSError
            The operating system does not give memory, or does not let it be executed.
        """
        memory = mmap.mmap(-1, len(self.code), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(self.code)
        owner = ctypes.c_char.from_buffer(memory)
        base = ctypes.addressof(owner)
        for kind, place, symbol, addend in self.relocations:
            value = (base if symbol is None else address_of_symbol(symbol)) + addend
            if kind == ABSOLUTE:
                struct.pack_into("<Q", memory, place, value)
            else:
                (instruction,) = struct.unpack_from("<I", memory, place)
                bits = value >> 16 * (kind - MOVE_WIDE) & 0xFFFF
                struct.pack_into("<I", memory, place, instruction & ~(0xFFFF << 5) | bits << 5)
        # From now on nothing writes to it. On arm64, Linux makes its instructions visible to the processor here.
        if _protect()(base, len(self.code), mmap.PROT_READ | mmap.PROT_EXEC):
            error = ctypes.get_errno()
            raise OSError(error, "memory cannot be made executable")
        definition = method_definition(name, base + self.entry)
        return LoadedCode(function_of(definition), base + self.kernel, (owner, definition))


def method_definition(name: str, address: int) -> Any:
    """Return the PyMethodDef of a function that takes its arguments as an array (METH_FASTCALL)."""
    return _MethodDefinition(name.encode(), address, _METH_FASTCALL, None)


def function_of(definition: Any) -> Callable[..., Any]:
    """Return the function of Python that a PyMethodDef defines."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    return make(ctypes.addressof(definition), None, None)


@functools.cache
def _protect() -> Any:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


@functools.cache
def address_of_symbol(name: str) -> int:
    """Return the address of a function or variable of Python or of the C library, or of NumPy's type of arrays.

    Raises
    ------
    AttributeError
        There is none.
    """
    if name == "PyArray_Type":
        return id(np.ndarray)
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
