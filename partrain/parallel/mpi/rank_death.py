"""The exception that a rank of an elastic job gets when another rank has died."""

from __future__ import annotations


class RankDied(Exception):
    """Another rank has died, or was told so before this one; the communication of this rank cannot be completed.

    The job starts again with the surviving ranks. No other code handles this exception.
    """
