"""How ranks with owners exchange a step (parallel.mpi.owner_messages)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.errors import FailedRun
from partrain.parallel.mpi.exchange import Pieces, results_of
from partrain.parallel.mpi.owned_moments import Collecting
from partrain.parallel.mpi.owner_messages import KEPT_MESSAGES, SEQUENCE, FirstMessage, SecondMessage, StepShares
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Range

Array = NDArray[Any]
Header = NDArray[np.int64]

# The parts of a step that this module times.
PARTS = SUMS, EXCHANGE_OF_SUMS, EXCHANGE_OF_PARAMETERS = "sums", "exchange of sums", "exchange of parameters"


class OwningRanks(Collecting, Protocol):
    """What this module needs of `parallel.mpi.communicator.Communicator`."""

    def alltoallv(self, sent: Pieces, received: Pieces) -> None:
        """Send each rank its piece of `sent`, and fill `received`."""

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Any, offsets: Any) -> None:
        """Fill the buffer with the pieces of all ranks."""


class OwnerExchange:
    """Exchanges the sums of nodes, and what becomes of them.

    Parameters
    ----------
    ownership : the owners.
    ranks : exchanges bytes with the other ranks.
    arrays : the shared arrays.
    sums : sums the nodes of this rank.

    Attributes
    ----------
    ownership, ranks : the arguments.
    sum : the gradient of what this rank owns, summed over the batch; after `send_sums`, until the next.
    seconds : of the last step, by part.
    """

    sum: Array

    def __init__(
        self,
        ownership: Ownership,
        ranks: OwningRanks,
        arrays: Mapping[str, Array],
        sums: NodeSums,
    ) -> None:
        self.ownership, self.ranks, self._sums = ownership, ranks, sums
        self.rank = ranks.rank
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._num_exchanges = 0
        # Not methods: an object whose caches refer to it would keep the shared arrays in memory.
        first = functools.partial(_lay_out_first, ownership, arrays, sums.sums_MU, self.rank)
        second = functools.partial(_lay_out_second, ownership, arrays, self.rank)
        self._first = functools.lru_cache(KEPT_MESSAGES)(first)
        self._second = functools.lru_cache(KEPT_MESSAGES)(second)

    def share(self, num_examples: int) -> Range:
        """Return the examples of this rank in a batch of this size."""
        return StepShares.of(self.ownership, num_examples).examples[self.rank]

    def send_sums(self, operation: Operation, num_examples: int, fill: Callable[[Header], None]) -> list[Header]:
        """Exchange the first message; this rank then has all results, and `sum`.

        Parameters
        ----------
        fill : fills in the header of this rank.

        Returns
        -------
        The headers of all ranks.
        """
        began = time.monotonic()
        shares, message = self._first(operation, num_examples)
        self._sums.compute(shares.nodes[self.rank])
        summed = time.monotonic()
        fill(message.header)
        message.outgoing.make()
        self.ranks.alltoallv(
            (message.sent, message.counts_out, message.offsets_out),
            (message.received, message.counts_in, message.offsets_in),
        )
        message.incoming.make()
        received = time.monotonic()
        message.add_sums()
        self.sum = message.sum
        self.seconds[SUMS] = summed - began + time.monotonic() - received
        self.seconds[EXCHANGE_OF_SUMS] = received - summed
        return message.headers_in

    def send_owned(self, num_examples: int, owned: Array, outcome: tuple[int, int, int]) -> SecondMessage:
        """Exchange the second message: what this rank owns, and whether it is finite.

        Returns
        -------
        The message of all ranks, until the next exchange.
        """
        began = time.monotonic()
        message = self._second(num_examples)
        self._num_exchanges += 1
        message.outcomes[self.rank][:] = (self._num_exchanges, *outcome)
        message.owned[self.rank][:] = owned
        message.outgoing.make()
        self.ranks.allgatherv(message.buffer, message.counts, message.offsets)
        message.incoming.make()
        for rank, words in enumerate(message.outcomes):
            if words[SEQUENCE] != self._num_exchanges:
                raise FailedRun(f"rank {rank} exchanges another message; the run stops, because bits would differ")
        self.seconds[EXCHANGE_OF_PARAMETERS] = time.monotonic() - began
        return message

    def close(self) -> None:
        """End the threads."""
        self._sums.close()


def _lay_out_first(
    ownership: Ownership,
    arrays: Mapping[str, Array],
    sums_MU: Array,
    rank: int,
    operation: Operation,
    num_examples: int,
) -> tuple[StepShares, FirstMessage]:
    shares = StepShares.of(ownership, num_examples)
    return shares, FirstMessage(ownership, shares, arrays, results_of(operation), sums_MU, rank)


def _lay_out_second(ownership: Ownership, arrays: Mapping[str, Array], rank: int, num_examples: int) -> SecondMessage:
    return SecondMessage(ownership, StepShares.of(ownership, num_examples), arrays, rank)
