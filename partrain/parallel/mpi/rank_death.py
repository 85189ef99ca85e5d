"""What a rank gets to know when another rank has failed or died."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Recovery:
    """What changed when the survivors of a death came together.

    Attributes
    ----------
    dead : the names of the ranks that have died.
    joined : the names of the spares that work from now on.
    """

    dead: list[str]
    joined: list[str]
