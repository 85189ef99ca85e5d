"""Compares memory that is about to be allocated with what is available.

A small file can promise much: a compressed archive grows a thousandfold, and a header can announce any size. Linux
grants the allocation and kills the process, without a message, when the pages are filled.
"""

from __future__ import annotations

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
    available = available_memory()
    if available is not None and num_bytes > available:
        raise ResourceError(
            f"{name}: does not fit into memory: it needs {num_bytes / MIB:,.0f} MiB, and {available / MIB:,.0f} MiB "
            f"are available. {advice}"
        )
