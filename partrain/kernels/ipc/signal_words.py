"""Sizes of the shared-memory words that processes use to signal each other. Needs no Numba."""

from __future__ import annotations

# int64 numbers in a cache line. Words on a line of their own do not slow down processes that read other words.
LINE = 8
