"""A compute group without processes: the calling process carries out all commands."""

from __future__ import annotations

from collections.abc import Sequence

from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.tile_computer import Computation, TileComputer


class InProcessGroup:
    """Computes in the calling process, for debugging and profiling; bit for bit the same as any pool."""

    def __init__(self, computation: Computation) -> None:
        self._computer = TileComputer(computation)
        self._tiling = computation.tiling
        self.num_at_once = 1
        self.num_tiles_computed = {"coordinator": 0}

    @property
    def pids(self) -> list[int]:
        """Empty: the group has no processes of its own."""
        return []

    def run(self, commands: Sequence[Command]) -> None:
        """Carry out all commands, in order."""
        for command in commands:
            self._computer.carry_out(command)
            if command.operation.is_step:
                self.num_tiles_computed["coordinator"] += self._tiling.num_tiles(command.last - command.first)

    def close(self) -> None:
        """Do nothing: the group has no processes."""
