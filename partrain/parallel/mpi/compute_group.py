"""A compute group that spans all ranks: each rank computes its share, and all ranks get all results."""

from __future__ import annotations

import functools
import signal
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.errors import FailedRun
from partrain.network.network import Network
from partrain.parallel.mpi.exchange import (
    CHECK,
    MOST_MESSAGES,
    SEQUENCE,
    SIGNAL,
    Message,
    Pieces,
    exchanged_arrays,
    lay_out,
)
from partrain.parallel.mpi.owner_exchange import OwnerExchange
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

    def alltoallv(self, sent: Pieces, received: Pieces) -> None:
        """Send each rank its piece of `sent`, and fill `received`."""

    def offer(self, state: Callable[[int], bytes | None]) -> None:
        """Let rank 0 collect a state of this rank."""

    def collect(self, step: int) -> dict[int, bytes]:
        """Return what the other ranks offer of the state after `step`."""


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
    owners : exchanges the steps of a training in which parameters have owners; None: there are none.

    Attributes
    ----------
    local, ranks, owners : the arguments.
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
        owners: OwnerExchange | None = None,
    ) -> None:
        self.local, self.ranks, self.owners = local, ranks, owners
        self._arrays = arrays
        self._received, self._agreed = received, agreed
        self.num_tiles_computed = local.num_tiles_computed
        self._num_exchanges = 0
        self.computed_at = self.exchanged_at = 0.0
        # Not methods: an object whose caches refer to it would keep the shared arrays in memory.
        message = functools.partial(_lay_out, network, arrays, tiling, ranks.rank, ranks.size)
        share = functools.partial(_cut_share, tiling, ranks.rank, ranks.size, local.num_at_once, owners)
        self._message = functools.lru_cache(MOST_MESSAGES)(message)
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
        if self.owners is not None and commands[0].operation.is_step:
            self.exchange_sums(self.owners, commands[0].operation, last)
        else:
            self.exchange(commands[0], last)
        self.exchanged_at = time.monotonic()

    def exchange(self, like: Command, last: int) -> None:
        """Exchange the results of the positions `like.first` to `last` - 1 with all ranks."""
        message = self._message(like.operation, like.first, last)
        self._fill_header(message.headers_RW[self.ranks.rank], like.operation)
        message.outgoing.make()
        self.ranks.allgatherv(message.buffer, message.counts, message.offsets)
        message.incoming.make()
        self._read_headers(message.headers_RW)

    def exchange_sums(self, owners: OwnerExchange, operation: Operation, num_examples: int) -> None:
        """Exchange the results of a batch, and the sums for the owners of its gradient."""
        headers = owners.send_sums(operation, num_examples, lambda header: self._fill_header(header, operation))
        self._read_headers(headers)

    def close(self) -> None:
        """End this rank's processes, and threads."""
        self.local.close()
        if self.owners is not None:
            self.owners.close()

    def _fill_header(self, header: NDArray[np.int64], operation: Operation) -> None:
        self._num_exchanges += 1
        if self._received.received is None and self.ranks.launcher_has_ended:
            self._received.received = signal.SIGTERM  # the launcher cannot send it any more
        header[SEQUENCE] = self._num_exchanges
        header[SIGNAL] = self._received.received or 0
        # In a step, a checksum of the parameters would cost as much as the exchange itself.
        header[CHECK] = operation if operation.is_step else zlib.crc32(self._arrays["parameters"].data)

    def _read_headers(self, headers_RW: Sequence[NDArray[np.int64]]) -> None:
        for rank, header in enumerate(headers_RW):
            for place, problem in ((SEQUENCE, "exchange another message"), (CHECK, "have other parameters")):
                if header[place] != headers_RW[0][place]:
                    raise FailedRun(
                        f"rank {rank} and rank 0 {problem}; the run stops, because their parameters would differ"
                    )
            if header[SIGNAL] and self._agreed.received is None:
                self._agreed.received = int(header[SIGNAL])


def _cut_share(
    tiling: Tiling,
    rank: int,
    num_ranks: int,
    num_at_once: int,
    owners: OwnerExchange | None,
    like: Command,
    last: int,
    piece: int,
) -> list[Command]:
    """Cut the rank's share of the positions `like.first` to `last` - 1 into commands."""
    if owners is not None and like.operation.is_step:
        begin, end = owners.share(last)
    else:
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
