"""A model of a step: predicts the speed-up for more cores from the phases measured on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from partrain.parallel.workers.tiles import Tiling


@dataclass(frozen=True)
class StepCosts:
    """A model of a step, in seconds: the coordinator's work, and the work that n workers share.

    n is the number of cores, each with one worker, at most the number of tiles; B is the batch size:

        T(B, n) = serial + shard(⌈tiles(B) / n⌉) + signals(n) + update(B) / parts(B, n)
        speed-up(B, n) = T(B, 1) / T(B, n)

    The coordinator works on a core of one worker, and the others wait for that one; so its work counts in full, even
    if it overlaps with that of workers. The model ignores memory bandwidth, shared caches, lower clock rates when all
    cores are busy, that workers of unequal speed wait longer the more they are, and that pieces of the update are not
    of equal size.

    Attributes
    ----------
    tiling : cuts a batch into tiles.
    serial : the coordinator's work, which depends neither on the batch size nor on the number of workers.
    signals : returns the time of the signals between processes for a number of workers.
    shard : the time of a worker, by number of tiles; for other numbers, in proportion to the next smaller one.
    update : the time of the update by one thread or worker, by batch size; in private training with the noise.
    parts : returns the number of threads or workers that share the update, for a batch size and a number of workers.
    """

    tiling: Tiling
    serial: float
    signals: Callable[[int], float]
    shard: Mapping[int, float]
    update: Mapping[int, float]
    parts: Callable[[int, int], int]

    def step(self, batch_size: int, cores: int) -> float:
        """Return T(batch_size, cores)."""
        tiles = self.tiling.num_tiles(batch_size)
        workers = min(cores, tiles)
        longest = -(-tiles // workers)
        known = max(k for k in self.shard if k <= longest)
        compute = self.shard[known] * longest / known
        update = self.update[batch_size] / self.parts(batch_size, workers)
        return self.serial + compute + self.signals(workers) + update

    def speed_up(self, batch_size: int, cores: int) -> float:
        """Return the speed-up of `cores` cores against one core."""
        return self.step(batch_size, 1) / self.step(batch_size, cores)
