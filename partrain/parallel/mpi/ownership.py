"""Which parameters have owners, and which rank owns them: decided by shapes, configuration and number of ranks alone.

The gradient of an owned parameter travels as sums of nodes of the tree of blocks, to its owner, which updates it; then
the new value travels to all. The other parameters are updated by all ranks, from factors and slots that all ranks have.

Shapes: N examples of the batch; D, E inputs, outputs of a dense layer; T tiles; K numbers of a slot; R ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from partrain.config.schema.training import Training
from partrain.kernels.update_rules import Rule
from partrain.network.layers import Dense
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups, Span
from partrain.parallel.mpi.block_runs import block_runs
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.workers.tiles import Tiling

# A number that a rank sends costs as much as so many multiply-adds of an update that all ranks make: 4 bytes at
# 10 Gbit/s take 3.5 ns, and a multiply-add of a sparse factor takes 0.0135 ns (parallel.update.piece_plan).
MULTIPLY_ADDS_PER_NUMBER = 256
# A second message in a step costs as much as so many numbers.
NUMBERS_PER_MESSAGE = 2**15


@dataclass(frozen=True, eq=False)
class Ownership:
    """The owners of a training.

    Attributes
    ----------
    tiling : cuts batches.
    num_ranks : the number of ranks.
    owned, shared : the parameters with an owner, and those that all ranks update.
    pieces : the elements of the flat vector that each rank owns, in order.
    """

    tiling: Tiling
    num_ranks: int
    owned: Part
    shared: Part
    pieces: tuple[tuple[Span, ...], ...]

    @classmethod
    def of(cls, owned: Part, network: Network, groups: ParameterGroups, tiling: Tiling, num_ranks: int) -> Ownership:
        """Return the owners of a part of the parameters: each rank gets an equal share."""
        whole = Part.whole(network)
        others = tuple(layer for layer in whole.layers if layer not in owned.layers)
        shared = Part(whole.has_slots and not owned.has_slots, others)
        return cls(tiling, num_ranks, owned, shared, _cut(owned.spans(network, groups), num_ranks))

    def size_of(self, rank: int) -> int:
        """Return the number of parameters that a rank owns."""
        return sum(last - first for first, last, _ in self.pieces[rank])

    def gather(self, rank: int, vector: NDArray[Any], target: NDArray[Any]) -> None:
        """Copy what a rank owns of a flat vector to `target` (size_of(rank),)."""
        for of_vector, of_target in self.parts(rank, vector, target):
            of_target[:] = of_vector

    def scatter(self, rank: int, source: NDArray[Any], vector: NDArray[Any]) -> None:
        """Copy `source` (size_of(rank),) to what a rank owns of a flat vector."""
        for of_vector, of_source in self.parts(rank, vector, source):
            of_vector[:] = of_source

    def parts(self, rank: int, vector: NDArray[Any], owned: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return the parts of a flat vector that a rank owns, and those of `owned` (size_of(rank),), as views."""
        return [(vector[first:last], owned[place : place + last - first]) for first, last, place in self._places(rank)]

    def element(self, rank: int, place: int) -> int:
        """Return the element of the flat vector that is at `place` of what a rank owns."""
        return next(first + place - start for first, last, start in self._places(rank) if place < start + last - first)

    def _places(self, rank: int) -> list[tuple[int, int, int]]:
        places, place = [], 0
        for first, last, _ in self.pieces[rank]:
            places.append((first, last, place))
            place += last - first
        return places


def choose_ownership(
    network: Network, groups: ParameterGroups, training: Training, batch_size: int, tiling: Tiling, num_ranks: int
) -> Ownership | None:
    """Return the owners; None if all ranks make the whole update.

    They do if that is cheaper, if a batch has fewer blocks than there are ranks, and for what needs the whole gradient:
    Muon and private training.

    Parameters
    ----------
    batch_size : the number of examples of a whole batch.
    """
    needs_all = training.privacy is not None or Rule.MUON in groups.rules
    if needs_all or num_ranks == 1 or len(tiling.blocks(batch_size)) < num_ranks:
        return None
    nodes = max(map(len, block_runs(batch_size, tiling, num_ranks)))
    whole = Part.whole(network)
    slots = _saved_by_owners(tiling.num_tiles(batch_size) * network.tile_sums.size, network.tile_sums.size, 0, nodes)
    savings = {layer: _saved(layer, batch_size, nodes) for layer in whole.layers}
    owned = Part(whole.has_slots and slots > 0, tuple(layer for layer in whole.layers if savings[layer] > 0))
    if slots * owned.has_slots + sum(savings[layer] for layer in owned.layers) <= NUMBERS_PER_MESSAGE:
        return None
    return Ownership.of(owned, network, groups, tiling, num_ranks)


def _saved(layer: Dense, batch_size: int, nodes: int) -> float:
    """Return how many numbers fewer a rank sends if a dense layer has owners."""
    (D,), (E,) = layer.input_shape, layer.output_shape
    return _saved_by_owners(batch_size * (D + E), D * E, batch_size * D * E, nodes)


def _saved_by_owners(num_factors: int, num_parameters: int, multiply_adds: int, nodes: int) -> float:
    return num_factors + multiply_adds / MULTIPLY_ADDS_PER_NUMBER - (nodes + 1) * num_parameters


def _cut(spans: list[Span], num_ranks: int) -> tuple[tuple[Span, ...], ...]:
    """Cut spans into pieces of nearly equal size."""
    size = sum(last - first for first, last, _ in spans)
    pieces: list[tuple[Span, ...]] = []
    for rank in range(num_ranks):
        begin, end = rank * size // num_ranks, (rank + 1) * size // num_ranks
        piece, place = [], 0
        for first, last, group in spans:
            low, high = max(begin, place), min(end, place + last - first)
            if low < high:
                piece.append(Span(first + low - place, first + high - place, group))
            place += last - first
        pieces.append(tuple(piece))
    return tuple(pieces)
