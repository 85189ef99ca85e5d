"""The version of the bits: two partrains with the same one train the same configuration and data to the same bits.

It changes when any computation rounds differently or draws other random numbers, and with nothing else: not with the
processor, nor with versions of Python, Numba, LLVM, NumPy or the C library. Digests of small trainings in the tests
hold it: to change one of them is to change the version. README says what each version means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BITS_VERSION = 2

# The field of run.json and of a checkpoint's metadata; those of version 1 do not have it.
BITS_FIELD = "bits"


def bits_version_of(document: Mapping[str, Any]) -> Any:
    """Return the version of the bits that a run or a checkpoint was computed with, as its file says.

    Parameters
    ----------
    document : the content of run.json, or the metadata of a checkpoint.
    """
    return document.get(BITS_FIELD, 1)
