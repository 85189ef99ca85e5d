"""A model of a step: predicts the speed-up for more cores from the phases measured on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from partrain.parallel.workers.tiles import Tiling


@dataclass(frozen=True)
class StepCosts:
    """A model of a step, in seconds: the coordinator's serial work, and the work that n workers share.

    n is the number of cores, each with one worker, at most the number of tiles; B is the batch size:

        T(B, n) = serial + n·dispatch + shard(⌈tiles(B) / n⌉) + wake + update(B, n)
        speed-up(B, n) = T(B, 1) / T(B, n)

    The model ignores memory bandwidth, shared caches, and lower clock rates when all cores are busy.

    Attributes
    ----------
    tiling : cuts a batch into tiles.
    serial : the time that depends neither on the batch size nor on the number of workers.
    dispatch : the time to post the command of one worker.
    wake : the time from the last command to the last answer when workers have nothing to compute.
    shard : the time of a worker, by number of tiles; for other numbers, in proportion to the next smaller one.
    update : the time of the update with one thread, by batch size.
    num_threads : returns the number of threads of the update for a batch size and a number of cores.
    """

    tiling: Tiling
    serial: float
    dispatch: float
    wake: float
    shard: Mapping[int, float]
    update: Mapping[int, float]
    num_threads: Callable[[int, int], int]

    def step(self, batch_size: int, cores: int) -> float:
        """Return T(batch_size, cores)."""
        tiles = self.tiling.num_tiles(batch_size)
        workers = min(cores, tiles)
        longest = -(-tiles // workers)
        known = max(k for k in self.shard if k <= longest)
        compute = self.shard[known] * longest / known
        alone = self.update[batch_size]
        update = alone / self.num_threads(batch_size, cores)
        return self.serial + workers * self.dispatch + compute + self.wake + update

    def speed_up(self, batch_size: int, cores: int) -> float:
        """Return the speed-up of `cores` cores against one core."""
        return self.step(batch_size, 1) / self.step(batch_size, cores)
