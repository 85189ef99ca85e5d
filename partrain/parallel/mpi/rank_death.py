"""The exceptions that a rank gets when another rank has failed or died."""

from __future__ import annotations

from partrain.errors import PartrainError


class RankDied(Exception):
    """Another rank has died, or was told so before this one; the communication of this rank cannot be completed.

    The job starts again with the surviving ranks. No other code handles this exception.
    """


class RankFailed(PartrainError):
    """Another rank has failed, and reports the cause itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
