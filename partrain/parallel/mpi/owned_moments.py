"""The optimizer's moments: each rank has those of the parameters that it owns, and rank 0 collects them to save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.errors import MomentsLost
from partrain.network.optimizer import ParameterOptimizer
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.update.lent_moments import LentMoments

Array = NDArray[Any]


class Collecting(Protocol):
    """What this module needs of `parallel.mpi.communicator.Communicator`."""

    rank: int

    def offer(self, state: Callable[[int], bytes | None]) -> None:
        """Let rank 0 collect a state of this rank."""

    def collect(self, step: int) -> dict[int, bytes]:
        """Return what the other ranks offer of the state after `step`."""


class OwnedMoments(LentMoments):
    """Keeps this rank's moments, and collects those of others.

    Parameters
    ----------
    optimizer : has the moments: the newest ones of what this rank owns, and of parameters without an owner.
    arrays : the shared arrays.
    ownership, ranks : the owners, and their connection.
    """

    def __init__(
        self, optimizer: ParameterOptimizer, arrays: Mapping[str, Array], ownership: Ownership, ranks: Collecting
    ) -> None:
        super().__init__(optimizer, arrays)
        self._ownership, self._ranks = ownership, ranks
        self._own = _OwnMoments(optimizer.first_moment, optimizer.second_moment, ownership, ranks.rank)
        ranks.offer(self._own.state)
        # The step of the moments, and that of the last collection. None: a restored or initial state, which all have.
        self._complete_after: int | None = None

    def commit(self, step: int) -> None:
        """Take note that the moments of the optimizer are those after `step`."""
        self._own.step = step

    def newest(self) -> tuple[Array, Array]:
        """Return all moments; on rank 0, those of others are collected.

        Raises
        ------
        MomentsLost
            Another rank does not answer.
        """
        step = self._own.step
        if self._ranks.rank == 0 and step != self._complete_after:
            assert step is not None
            states = self._ranks.collect(step)
            others = range(1, self._ownership.num_ranks)
            lost = [rank for rank in others if rank not in states]
            if lost:
                raise MomentsLost(
                    f"the moments of step {step} that rank {', '.join(map(str, lost))} owns cannot be collected"
                )
            for rank in others:
                self._own.take(rank, states[rank])
            self._complete_after = step
        return super().newest()


class _OwnMoments:
    """What a rank offers to rank 0. It refers to no shared memory, because it lives until the end of the process."""

    def __init__(self, first_moment: Array, second_moment: Array, ownership: Ownership, rank: int) -> None:
        self._vectors = [vector for vector in (first_moment, second_moment) if vector.size]
        self._ownership, self._rank = ownership, rank
        self.step: int | None = None

    def state(self, step: int) -> bytes | None:
        """Return the moments after `step` of what this rank owns; None if it has those of another step."""
        if step != self.step:
            return None
        moments = []
        for vector in self._vectors:
            moments.append(np.empty(self._ownership.size_of(self._rank), vector.dtype))
            self._ownership.gather(self._rank, vector, moments[-1])
        return b"".join(part.tobytes() for part in moments)

    def take(self, rank: int, state: bytes) -> None:
        """Take what another rank owns, as its `state` returned it."""
        size, place = self._ownership.size_of(rank), 0
        for vector in self._vectors:
            self._ownership.scatter(rank, np.frombuffer(state, vector.dtype, size, place), vector)
            place += size * vector.itemsize
        assert place == len(state)
