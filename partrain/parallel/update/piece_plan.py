"""Cuts an update of the parameters into pieces, by shapes alone. Needs no Numba."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from partrain.kernels.update_rules import Rule
from partrain.network.layers import Dense, is_trained
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups, Span

# Parameters in a piece: each thread gets a few pieces, so that all threads end at about the same time.
PIECE = 8192
# Units of a dense layer whose deltas are listed at once (kernels.delta_lists): larger pieces are whole groups of them.
UNITS_AT_ONCE = 8
# With more threads, they wait for memory and for each other.
MAX_THREADS = 8
# The least work for a thread, and an estimate of all work: nanoseconds for each parameter, once in a step (Adam) and
# for each example (its gradient). With less work, waking the thread and moving the data to its cache take longer.
NANOSECONDS_PER_THREAD = 100_000
NANOSECONDS_PER_STEP, NANOSECONDS_PER_EXAMPLE = 0.43, 0.0135
# Of the noise of a parameter: its random words, and the normals.
NANOSECONDS_PER_NORMAL = 11
# A parameter of a layer whose rows compete for a few sets of the cache (kernels.dense.panel_step) takes this many times
# as long: of 512 x 512 weights, one takes 1.0 ns, and of 784 x 512 weights 0.84.
COMPETING = 1.2


def useful_threads(network: Network, batch_size: int, num_processors: int) -> int:
    """Return the number of threads that make an update fastest."""
    nanoseconds = network.parameters.size * (NANOSECONDS_PER_STEP + NANOSECONDS_PER_EXAMPLE * batch_size)
    return max(1, min(num_processors, MAX_THREADS, int(nanoseconds / NANOSECONDS_PER_THREAD)))


def useful_noise_threads(num_parameters: int, num_processors: int) -> int:
    """Return the number of threads that draw and add the noise of a private step fastest."""
    nanoseconds = num_parameters * NANOSECONDS_PER_NORMAL
    return max(1, min(num_processors, MAX_THREADS, int(nanoseconds / NANOSECONDS_PER_THREAD)))


class Piece(NamedTuple):
    """A piece of the second round.

    Attributes
    ----------
    layer : a dense layer; None: the parameters are in the slots.
    first, last : the first unit, and the one after the last; or of parameters of the slots.
    rule : the rule of its parameters.
    group, bias_group : the group of the weights, or of the parameters of slots; and of the biases.
    """

    layer: Dense | None
    first: int
    last: int
    rule: Rule
    group: int
    bias_group: int

    @property
    def competes(self) -> bool:
        """Whether its rows compete for a few sets of the cache."""
        return self.layer is not None and self.layer.input_shape[0] % 256 == 0

    @property
    def size(self) -> int:
        """The number of parameters, without biases of dense layers."""
        return (self.last - self.first) * (1 if self.layer is None else self.layer.input_shape[0])


@dataclass(frozen=True)
class Part:
    """A part of the parameters that is updated in one way.

    Attributes
    ----------
    has_slots : whether it has the parameters whose gradients are in the slots of tiles.
    layers : the trained dense layers of the part.
    """

    has_slots: bool
    layers: tuple[Dense, ...]

    @classmethod
    def whole(cls, network: Network) -> Part:
        """Return the part of all trained parameters."""
        return cls(network.tile_sums.size > 0, tuple(filter(is_trained, network.dense_layers)))

    @property
    def is_empty(self) -> bool:
        """Whether it has no parameters."""
        return not self.has_slots and not self.layers

    def spans(self, network: Network, groups: ParameterGroups) -> list[Span]:
        """Return the elements of the flat vector, in order."""
        ends = [(0, network.tile_sums.size)] if self.has_slots else []
        for layer in self.layers:
            first = network.parameters.start(layer.parameters[0].name)
            ends.append((first, first + sum(p.size for p in layer.parameters)))
        return [
            Span(max(first, span.first), min(last, span.last), span.group)
            for first, last in ends
            for span in groups.spans
            if span.first < last and span.last > first
        ]


def cut_update(network: Network, groups: ParameterGroups, part: Part | None = None) -> Iterator[Piece]:
    """Yield the pieces of the second round; the parameters of a piece of slots belong to one group.

    Parameters
    ----------
    part : the parameters that are updated; None: all.
    """
    part = part or Part.whole(network)
    for begin, end, group in groups.within(network.tile_sums.size) if part.has_slots else ():
        for first, last in ranges(end - begin, PIECE):
            yield Piece(None, begin + first, begin + last, groups.groups[group].rule, group, group)
    for layer in part.layers:
        (D,), (E,) = layer.input_shape, layer.output_shape
        group, bias_group = (groups.number_of(p.name) for p in layer.parameters)
        rule = groups.groups[group].rule
        assert rule == groups.groups[bias_group].rule
        for first, last in ranges(E, _units_of_piece(D)):
            yield Piece(layer, first, last, rule, group, bias_group)


def _units_of_piece(D: int) -> int:
    units = max(1, PIECE // D)
    return units if units <= UNITS_AT_ONCE else -(-units // UNITS_AT_ONCE) * UNITS_AT_ONCE


def share_pieces(
    network: Network, groups: ParameterGroups, num_examples: int, num_members: int
) -> list[tuple[int, int]]:
    """Cut the second round's pieces into one run of pieces for each member, of about the same work.

    Returns
    -------
    For each member its first piece, and the piece after its last.
    """
    per_parameter = NANOSECONDS_PER_STEP + NANOSECONDS_PER_EXAMPLE * num_examples
    costs = [piece.size * per_parameter * (COMPETING if piece.competes else 1) for piece in cut_update(network, groups)]
    ends = list(itertools.accumulate(costs))
    middles = [end - cost / 2 for end, cost in zip(ends, costs, strict=True)]
    cuts = [bisect.bisect_left(middles, ends[-1] * member / num_members) for member in range(num_members)]
    return list(itertools.pairwise([*cuts, len(costs)]))


def ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut range(size) into runs of `step`; yield the first index of each, and the index after its last."""
    for first in range(0, size, step):
        yield first, min(first + step, size)
