"""A compute group that spans all ranks: each rank computes its share, and all ranks get all results."""

from __future__ import annotations

import functools
import signal
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.errors import FailedRun
from partrain.network.network import Network
from partrain.parallel.mpi.exchange import CHECK, SEQUENCE, SIGNAL, Message, exchanged_arrays, lay_out
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.tiles import Tiling
from partrain.system.signals import Interruption


class Ranks(Protocol):
    """What this module needs of `parallel.mpi.communicator.Communicator`."""

    rank: int
    size: int

    @property
    def launcher_has_ended(self) -> bool:
        """Whether the launcher of this rank has ended."""

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Sequence[int], offsets: Sequence[int]) -> None:
        """Fill the buffer with the pieces of all ranks."""


class MpiComputeGroup:
    """Carries out commands together with the other ranks, which run the same commands.

    Each exchange carries its number, and that of an evaluation a checksum of the parameters. If the ranks disagree, the
    run fails instead of going on with different bits.

    Parameters
    ----------
    local : computes this rank's share.
    ranks : exchanges bytes with the other ranks.
    network, arrays, tiling : the network, the shared arrays and the tiling of the computation.
    received : the signals that this rank has received.
    agreed : is set to the signal that any rank has received, on all ranks after the same exchange.

    Attributes
    ----------
    local : computes this rank's share.
    num_tiles_computed : the tiles that each worker of this rank has computed.
    computed_at, exchanged_at : when the last `run` had computed its share, and had all results; `time.monotonic`.
    """

    num_at_once = 1  # each rank cuts its own share

    def __init__(
        self,
        local: ComputeGroup,
        ranks: Ranks,
        network: Network,
        arrays: Mapping[str, NDArray[Any]],
        tiling: Tiling,
        received: Interruption,
        agreed: Interruption,
    ) -> None:
        self.local, self._ranks = local, ranks
        self._arrays = arrays
        self._received, self._agreed = received, agreed
        self.num_tiles_computed = local.num_tiles_computed
        self._num_exchanges = 0
        self.computed_at = self.exchanged_at = 0.0
        # Not methods: an object whose caches refer to it would keep the shared arrays in memory.
        message = functools.partial(_lay_out, network, arrays, tiling, ranks.rank, ranks.size)
        share = functools.partial(_cut_share, tiling, ranks.rank, ranks.size, local.num_at_once)
        self._message = functools.lru_cache(maxsize=8)(message)
        self._share = functools.lru_cache(maxsize=8)(share)

    @property
    def pids(self) -> list[int]:
        """The process ids of this rank's group."""
        return self.local.pids

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all ranks have carried out their shares and this rank has all results.

        Parameters
        ----------
        commands : consecutive, without a gap between them; the same on all ranks.
        """
        last, piece = commands[-1].last, commands[0].last - commands[0].first
        self.local.run(self._share(commands[0], last, piece))
        self.computed_at = time.monotonic()
        self.exchange(commands[0], last)
        self.exchanged_at = time.monotonic()

    def exchange(self, like: Command, last: int) -> None:
        """Exchange the results of the positions `like.first` to `last` - 1 with all ranks."""
        message = self._message(like.operation, like.first, last)
        self._fill_header(message.headers_RW[self._ranks.rank], like.operation)
        for target, source in message.outgoing:
            target[...] = source
        self._ranks.allgatherv(message.buffer, message.counts, message.offsets)
        for target, source in message.incoming:
            target[...] = source
        self._read_headers(message, like.operation)

    def step_message(self, operation: Operation, num_examples: int) -> Message:
        """Return the message of a step with `num_examples`."""
        return self._message(operation, 0, num_examples)

    def close(self) -> None:
        """End this rank's processes."""
        self.local.close()

    def _fill_header(self, header: NDArray[np.int64], operation: Operation) -> None:
        self._num_exchanges += 1
        if self._received.received is None and self._ranks.launcher_has_ended:
            self._received.received = signal.SIGTERM  # the launcher cannot send it any more
        header[SEQUENCE] = self._num_exchanges
        header[SIGNAL] = self._received.received or 0
        # In a step, a checksum of the parameters would cost as much as the exchange itself.
        header[CHECK] = operation if operation.is_step else zlib.crc32(self._arrays["parameters"].data)

    def _read_headers(self, message: Message, operation: Operation) -> None:
        for rank, header in enumerate(message.headers_RW):
            for place, problem in ((SEQUENCE, "exchange another message"), (CHECK, "have other parameters")):
                if header[place] != message.headers_RW[0][place]:
                    raise FailedRun(
                        f"rank {rank} and rank 0 {problem}; the run stops, because their parameters would differ"
                    )
            if header[SIGNAL] and self._agreed.received is None:
                self._agreed.received = int(header[SIGNAL])


def _cut_share(
    tiling: Tiling, rank: int, num_ranks: int, num_at_once: int, like: Command, last: int, piece: int
) -> list[Command]:
    """Cut the rank's share of the positions `like.first` to `last` - 1 into commands."""
    begin, end = tiling.rank_share(like.first, last, rank, num_ranks)
    if begin == end:
        return []
    if like.operation.is_step:
        cuts = tiling.shards(begin, end, num_at_once)
    else:
        cuts = [(place, min(place + piece, end)) for place in range(begin, end, piece)]
    return [like._replace(first=a, last=b) for a, b in cuts]


def _lay_out(
    network: Network,
    arrays: Mapping[str, NDArray[Any]],
    tiling: Tiling,
    rank: int,
    num_ranks: int,
    operation: Operation,
    first: int,
    last: int,
) -> Message:
    shares = [tiling.rank_share(first, last, other, num_ranks) for other in range(num_ranks)]
    return lay_out(arrays, exchanged_arrays(network, operation), shares, tiling, rank)
