"""A model of a step: how fast more cores than are here would be, from phases that were measured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from partrain.parallel.workers.tiles import Tiling


@dataclass(frozen=True)
class StepCosts:
    """A model of a step, in seconds: what is done once by the coordinator, and what n workers share.

    With n the cores (a worker on each; no more than there are tiles), B the batch size:

        T(B, n) = serial + n·dispatch + shard(⌈tiles(B) / n⌉) + wake + update(B, n)
        speed-up(B, n) = T(B, 1) / T(B, n)

    An update is divided between threads, or between workers that help: then it is the time with all that they make
    ready, and the n-th part of what that is less than the time without help.

    It knows nothing of memory bandwidth, shared caches, and clocks that fall when all cores work.

    Attributes
    ----------
    tiling : cuts a batch.
    serial : all that neither the batch size nor the number of workers changes.
    dispatch : giving one worker its command.
    wake : from there until its answer is there, if it has nothing to compute.
    shard : a worker's computation, by its number of tiles; between and beyond them in proportion to the next fewer.
    update : the update of the parameters by one thread, by batch size.
    helped_update : the same with all that helpers make ready, for batch sizes with which workers help.
    num_threads : how many threads make it, of a batch size and a number of cores.
    """

    tiling: Tiling
    serial: float
    dispatch: float
    wake: float
    shard: Mapping[int, float]
    update: Mapping[int, float]
    helped_update: Mapping[int, float]
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
        if workers > 1 and batch_size in self.helped_update:
            helped = self.helped_update[batch_size]
            update = helped + (alone - helped) / workers
        return self.serial + workers * self.dispatch + compute + self.wake + update

    def speed_up(self, batch_size: int, cores: int) -> float:
        """Return how many times as fast as one worker `cores` of them are."""
        return self.step(batch_size, 1) / self.step(batch_size, cores)
