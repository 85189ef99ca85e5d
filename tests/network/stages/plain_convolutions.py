"""Convolutions that are computed by themselves, by the stage and by the loops, of arrays (N, C, H, W).

Shapes: N examples; C, H, W input channels, rows, columns; F filters; T tiles; K parameters of a slot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from partrain.config.schema.layers import Conv, Dense, Flatten
from partrain.kernels import loops_convolution
from partrain.kernels.call_list import call_now
from partrain.kernels.compiler.loading import load
from partrain.network.network import Network
from partrain.network.stages.plain_convolution import PlainConvStage
from partrain.network.stages.stage import Gradient, zeros_with_slack


class Results(NamedTuple):
    y: np.ndarray  # (N, F, P, Q)
    dx: np.ndarray  # (N, C, H, W)
    dw: np.ndarray  # (T, F, C/groups, R, S)
    db: np.ndarray  # (T, F), or (T, 0) without a bias


class Case(NamedTuple):
    """A convolution with its numbers; the last of `num_tiles` tiles has fewer examples."""

    network: Network
    parameters: np.ndarray
    x: np.ndarray
    dy: np.ndarray
    tile: int

    @property
    def conv(self):
        return self.network.layers[0]

    @property
    def arrays(self):
        """Return the filters, and the biases, or zeros."""
        w, *b = (self.network.parameters.views(self.parameters)[p.name] for p in self.conv.parameters)
        return w, b[0] if b else np.zeros(len(w), w.dtype)

    @property
    def geometry(self):
        return self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups

    def of_size(self):
        """Return the case with the absolute values of all numbers, in float64."""
        return self._replace(**{name: np.abs(getattr(self, name).astype(np.float64)) for name in ARRAYS})

    def in_float64(self):
        return self._replace(**{name: getattr(self, name).astype(np.float64) for name in ARRAYS})


ARRAYS = ("parameters", "x", "dy")


def drawn(description, shape, seed, N=5, tile=2):
    network = Network([description, Flatten(), Dense(units=1)], shape, 1)
    rng = np.random.default_rng(seed)
    sizes = network.parameters.size, (N, *shape), (N, *network.layers[0].output_shape)
    return Case(network, *(rng.standard_normal(size).astype(np.float32) for size in sizes), tile)


def drawn_at_random(seed):
    """Draw groups, dilation, strides, paddings; every third one is depthwise, every third one has 3x3 filters."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 6))
    channels = groups * int(rng.integers(1, 1 + 40 // groups))
    groups = (channels, groups, 1)[seed % 3]
    filters = groups * int(rng.integers(1, 1 + max(1, 40 // groups)))
    kernel = [3, 3] if seed % 3 == 2 else rng.integers(1, 5, 2).tolist()
    stride, padding, dilation = (rng.integers(*bounds, 2).tolist() for bounds in ((1, 3), (0, 3), (1, 3)))
    if seed % 3 == 2:
        stride, padding, dilation = [1, 1], [1, 1], [1, 1]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [int(max(extent[k] - 2 * padding[k], rng.integers(4, 18))) for k in range(2)]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bool(rng.random() < 0.5)}
    description = Conv(filters=filters, kernel=kernel, groups=groups, **options)
    return drawn(description, (channels, *size), seed, int(rng.integers(1, 6)), int(rng.integers(1, 4)))


def by_stage(case):
    """Return what the stage computes."""
    conv, N = case.conv, len(case.x)
    load((*PlainConvStage.KERNELS, *PlainConvStage.kernels_of(conv)), "float32")
    tile_sums, views = case.network.tile_sums, case.network.parameters.views(case.parameters)
    stage = PlainConvStage((conv,), case.network, views, N)
    rows, columns = stage.border
    x_NHWC = np.pad(case.x.transpose(0, 2, 3, 1), ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    x, dy = zeros_with_slack(x_NHWC.shape), zeros_with_slack((N, *conv.output_shape[1:], conv.output_shape[0]))
    x[...], dy[...] = x_NHWC, case.dy.transpose(0, 2, 3, 1)
    slots = np.full((-(-N // case.tile), tile_sums.size), np.nan, np.float32)
    y = stage.forward(x, call_now).transpose(0, 3, 1, 2)
    gradient = Gradient(dy.reshape(N, -1), conv.output_shape[0], 1)
    dx = stage.backward(gradient, slots, case.tile, {}, True, call_now).rows_ND
    dx = dx.reshape(N, *conv.input_shape[1:], conv.input_shape[0]).transpose(0, 3, 1, 2)
    of_tiles = [tile_sums.views(slot) for slot in slots]
    dw, *db = ([views[p.name] for views in of_tiles] for p in conv.parameters)
    return Results(y.copy(), dx.copy(), np.array(dw), np.array(db[0]) if db else np.empty((len(slots), 0)))


def by_loops(case):
    """Return what the loops compute, in the type of the numbers."""
    (w, b), dtype = case.arrays, case.x.dtype
    load(LOOPS, str(dtype))
    y = np.full((len(case.x), *case.conv.output_shape), np.nan, dtype)
    dx = np.full_like(case.x, np.nan)
    loops_convolution.conv2d_forward(case.x, w, b, *case.geometry, y)
    loops_convolution.conv2d_backward_input(case.dy, w, *case.geometry, dx)
    dws, dbs = [], []
    for first in range(0, len(case.x), case.tile):
        part = slice(first, first + case.tile)
        dw, db = np.zeros_like(w), np.zeros(len(w) if case.conv.has_bias else 0, dtype)
        loops_convolution.conv2d_backward_weights(case.x[part], case.dy[part], *case.geometry, dw, db)
        dws.append(dw)
        dbs.append(db)
    return Results(y, dx, np.array(dws), np.array(dbs))


LOOPS = (
    loops_convolution.conv2d_forward,
    loops_convolution.conv2d_backward_input,
    loops_convolution.conv2d_backward_weights,
)
