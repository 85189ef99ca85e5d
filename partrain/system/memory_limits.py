"""Compares memory that is about to be allocated with what is available.

A small file can promise much: a compressed archive grows a thousandfold, and a header can announce any size. Linux
grants the allocation and kills the process, without a message, when the pages are filled.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path

from partrain.errors import ResourceError
from partrain.system.machine import MIB, available_memory

# Less is always granted: asking the system takes longer than reading a small file.
UNCHECKED_BYTES = 8 * MIB


def require_memory(num_bytes: int, name: str, advice: str) -> None:
    """Check that an allocation fits into the available memory.

    Parameters
    ----------
    num_bytes : the bytes to allocate.
    name : the file or array that needs them; the message begins with it.
    advice : a sentence that ends the message.

    Raises
    ------
    ResourceError
        It does not fit; the message says how much is needed and how much is available.
    """
    if num_bytes <= UNCHECKED_BYTES:
        return
    available = _available_for(num_bytes)
    if available is not None and num_bytes > available:
        raise ResourceError(
            f"{name}: does not fit into memory: it needs {num_bytes / MIB:,.0f} MiB, and {available / MIB:,.0f} MiB "
            f"are available. {advice}"
        )


def _available_for(num_bytes: int) -> int | None:
    """Return the available memory in bytes; if it is less than `num_bytes`, return freed memory to the system first.

    The C library keeps what other threads have freed, for their next allocations: hundreds of MiB after large images.
    """
    available = available_memory()
    if available is None or num_bytes <= available:
        return available
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc has it, musl and macOS do not
        trim(0)
    return available_memory()


def read_whole(path: Path, growth: int, advice: str) -> bytes:
    """Return the content of a file.

    Parameters
    ----------
    path : the file.
    growth : how many times its size the content takes at most, when it has been parsed.
    advice : as for `require_memory`.

    Raises
    ------
    OSError
        The file cannot be read.
    ResourceError
        It does not fit into memory: a file of a few bytes can have a hole of any size.
    """
    require_memory(growth * path.stat().st_size, str(path), advice)
    return path.read_bytes()


class MemoryBudget:
    """Lets threads allocate one after the other if their allocations do not fit into memory together."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reserved_bytes = 0

    @contextlib.contextmanager
    def reserved(self, num_bytes: int, name: str, advice: str) -> Iterator[None]:
        """Reserve memory within the block; wait for other threads as long as there is too little for all.

        Parameters and exceptions are those of `require_memory`.
        """
        if num_bytes <= UNCHECKED_BYTES:
            yield
            return
        with self._changed:
            # What others have reserved may be allocated already and then counts twice: on the safe side.
            self._changed.wait_for(lambda: not self._reserved_bytes or self._fits(num_bytes + self._reserved_bytes))
            require_memory(num_bytes, name, advice)
            self._reserved_bytes += num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._reserved_bytes -= num_bytes
                self._changed.notify_all()

    @staticmethod
    def _fits(num_bytes: int) -> bool:
        available = _available_for(num_bytes)
        return available is None or num_bytes <= available
