"""The geometry of convolutions as lists of taps, patches and places, for kernels.tap_convolution.

Shapes: C, H, W input channels, rows, columns; F filters; G channels of a group; R, S filter rows, columns; P, Q output
rows, columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.tap_convolution import MOST
from partrain.network.layers import Conv2d

Indices = NDArray[np.int64]
Border = tuple[int, int]


@dataclass(frozen=True)
class TapList:
    """Sums over the same taps, at many places.

    Attributes
    ----------
    taps : steps from a patch, in the order of the sum.
    patches, places : where each patch begins in an example that is read, and the first number that is written for it.
    num_places : their number; `taps`, `patches` and `places` repeat their last number up to the end of a block.
    first, num_outputs : channels that are written.
    sources, step : output k of tap t is multiplied by number sources[t] + k·step of the filters.
    """

    taps: Indices
    patches: Indices
    places: Indices
    num_places: int
    first: int
    num_outputs: int
    sources: Indices
    step: int


def is_plain(conv: Conv2d) -> bool:
    """Return whether a convolution has neither groups nor dilation."""
    return conv.groups == 1 and conv.dilation == (1, 1)


def is_depthwise(conv: Conv2d) -> bool:
    """Return whether each filter sees one channel; then channels are repeated until there is one for each filter."""
    return conv.groups == conv.input_shape[0] > 1


def forward_lists(conv: Conv2d, dy_border: Border = (0, 0)) -> Iterator[TapList]:
    """Yield the list of each group, of channels that the vectors' lanes hold in a depthwise convolution.

    With `dy_border`, places are those of a gradient at the output with that border.
    """
    F, P, Q = conv.output_shape
    _, G, R, S = conv.parameters[0].shape
    C, columns = _channels(conv), conv.input_shape[2] + 2 * conv.padding[1]
    (up, left), bordered_Q = dy_border, Q + 2 * dy_border[1]
    patches = _grid(np.arange(P) * conv.stride[0] * columns, np.arange(Q) * conv.stride[1]) * C
    places = _grid((np.arange(P) + up) * bordered_Q, np.arange(Q) + left) * F
    taps = _grid(np.arange(R) * conv.dilation[0] * columns, np.arange(S) * conv.dilation[1]) * C
    if is_depthwise(conv):
        yield _tap_list(taps, patches, places, 0, F, np.arange(R * S), R * S)
        return
    Fg = F // conv.groups
    sources = _grid(np.arange(R * S), np.arange(G) * R * S)
    for g in range(conv.groups):
        with_channels = _grid(taps, np.arange(G) + g * G)
        yield _tap_list(with_channels, patches, places + g * Fg, g * Fg, Fg, sources + g * Fg * G * R * S, G * R * S)


def _tap_list(
    taps: Indices, patches: Indices, places: Indices, first: int, num_outputs: int, sources: Indices, step: int
) -> TapList:
    def padded(indices: Indices) -> Indices:
        # Blocks of different sizes read the lists, so each finds as many numbers to spare as it may need.
        return np.ascontiguousarray(np.concatenate([indices, np.repeat(indices[-1:], MOST)]))

    return TapList(padded(taps), padded(patches), padded(places), len(places), first, num_outputs, sources, step)


def _grid(rows: Indices, columns: Indices) -> Indices:
    """Return row + column of each pair, by rows."""
    return (rows.reshape(-1, 1) + columns.reshape(1, -1)).reshape(-1)


def _channels(conv: Conv2d) -> int:
    """Return how many channels the input has that the kernels read."""
    return conv.output_shape[0] if is_depthwise(conv) else conv.input_shape[0]


@dataclass(frozen=True)
class _Phase:
    """Input positions, `stride` apart in one dimension, that the same taps reach.

    Attributes
    ----------
    positions : of the input.
    taps, first_outputs : the taps, and for each the output that it takes to the first position.
    """

    positions: Indices
    taps: Indices
    first_outputs: Indices


def _phases(conv: Conv2d, dimension: int) -> list[_Phase]:
    size, taps = conv.input_shape[1 + dimension], np.arange(conv.parameters[0].shape[2 + dimension])
    stride, padding, dilation = (pair[dimension] for pair in (conv.stride, conv.padding, conv.dilation))
    phases = []
    for first in range(min(stride, size)):
        reaching = taps[(first + padding - taps * dilation) % stride == 0]
        phases.append(
            _Phase(np.arange(first, size, stride), reaching, (first + padding - reaching * dilation) // stride)
        )
    return phases


def gradient_border(conv: Conv2d) -> Border:
    """Return the border of zeros that the gradient at the output needs, so that each tap finds a number."""
    rows, columns = (_needed(_phases(conv, d), conv.output_shape[1 + d]) for d in range(2))
    return rows, columns


def _needed(phases: list[_Phase], size: int) -> int:
    outside = 0
    for phase in phases:
        for first in phase.first_outputs:
            outside = max(outside, -first, first + len(phase.positions) - size)
    return int(outside)


def gradient_lists(conv: Conv2d) -> Iterator[TapList]:
    """Yield the lists of the gradient at the input, which read the gradient at the output with `gradient_border`.

    dx[i,j,c] = sum over r,s,f of  dy[p,q,f] · w[f,c,r,s],  with i = p·stride + r·dilation - padding, and j likewise

    There is a list for each group and each pair of phases.
    """
    F, _, Q = conv.output_shape
    _, G, R, S = conv.parameters[0].shape
    C, W = _channels(conv), conv.input_shape[2]
    up, left = gradient_border(conv)
    columns = Q + 2 * left
    for rows in _phases(conv, 0):
        for cols in _phases(conv, 1):
            patches = _grid(np.arange(len(rows.positions)) * columns, np.arange(len(cols.positions))) * F
            places = _grid(rows.positions * W, cols.positions) * C
            taps = _grid((rows.first_outputs + up) * columns, cols.first_outputs + left) * F
            sources = _grid(rows.taps * S, cols.taps)
            if is_depthwise(conv):
                yield _tap_list(taps, patches, places, 0, F, sources, R * S)
                continue
            Fg = F // conv.groups
            for g in range(conv.groups):
                filters = np.arange(Fg) + g * Fg
                yield _tap_list(
                    _grid(taps, filters), patches, places + g * G, g * G, G,
                    _grid(sources, filters * G * R * S), R * S,
                )  # fmt: skip


def num_products(conv: Conv2d) -> tuple[int, int]:
    """Return how many products the gradient at the input takes by these lists, and how many of them are not with 0."""
    by_lists = (sum(len(phase.positions) * len(phase.taps) for phase in _phases(conv, d)) for d in range(2))
    _, P, Q = conv.output_shape
    _, _, R, S = conv.parameters[0].shape
    return math.prod(by_lists), P * R * Q * S
