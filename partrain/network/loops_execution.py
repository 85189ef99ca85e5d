"""The plain execution: layer by layer, with the loops that define each operation.

Shapes: N examples, T tiles of them; M images of a split; C, H, W input channels, rows, columns; D, E dense inputs,
outputs; K parameters whose gradients are summed by tile; L layers with parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import (
    NORM_KERNELS,
    Array,
    Factors,
    TrainingExamples,
    scale_rows,
    write_squared_norms,
)
from partrain.network.layers import Layer, is_trained
from partrain.network.loop_layers.elementwise import DropoutLoops
from partrain.network.loop_layers.layer import TrainedLoopsLayer
from partrain.network.loop_layers.normalisation import BatchNormLoops
from partrain.network.loop_layers.table import LoopsLayers, loops_kernels
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation


class LoopsExecution:
    """Computes one tile per call.

    Parameters
    ----------
    network : the network's shapes.
    parameters : dtype vector (network.parameters.size,); every call reads its current values.
    normalisation : the normalisation of the images.
    tile : number of examples per tile.
    dtype : "float32" or "float64"; the loops are loaded for it.
    """

    KERNELS = (loops.gather_normalised, *NORM_KERNELS)

    def __init__(
        self, network: Network, parameters: Array, normalisation: Normalisation, tile: int, dtype: str
    ) -> None:
        self.capacity = tile
        views = network.parameters.views(parameters)
        self._network = network
        self._mean = np.array(normalisation.mean, dtype)
        self._inverse_std = 1 / np.array(normalisation.std, dtype)
        self._x_NCHW = np.empty((tile, *network.input_shape), dtype)
        layers = LoopsLayers(network.layers, views, tile, dtype)
        self._sequence = layers.sequence
        self._dropouts = [layer.factors for layer in layers.leaves if isinstance(layer, DropoutLoops)]
        self._batch_norms = [layer for layer in layers.leaves if isinstance(layer, BatchNormLoops)]
        self._trained = [
            cast(TrainedLoopsLayer, loops_layer)
            for loops_layer, layer in zip(layers.leaves, network.leaf_layers, strict=True)
            if is_trained(layer)
        ]
        self._example_slots_NK = np.zeros((tile, network.tile_sums.size), dtype)

    @classmethod
    def kernels(cls, layers: Iterable[Layer]) -> tuple[Kernel, ...]:
        """Return the kernels that this execution calls for these layers."""
        return (*cls.KERNELS, *dict.fromkeys(loops_kernels(layers)))

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """See `Execution`."""
        for factors in self._dropouts:
            factors.draw(training)
        for layer in self._batch_norms:
            layer.trains = training is not None
        y = self._x_NCHW[: len(indices_N)]
        loops.gather_normalised(images_MCHW, indices_N, self._mean, self._inverse_std, y)
        return self._sequence.forward(y)

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `Execution`."""
        self._propagate(dlogits_NE, factors)
        self._add_sums(0, len(dlogits_NE), slots_TK[0])

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """See `Execution`."""
        N = len(dlogits_NE)
        self._propagate(dlogits_NE, factors)
        for n in range(N):
            self._add_sums(n, n + 1, self._example_slots_NK[n])
        write_squared_norms(self._network, self._example_slots_NK[:N], factors, squared_norms_NL)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `Execution`."""
        if scales_N is not None:
            for layer in self._trained:
                scale_rows(layer.dy, scales_N)
                layer.write_factors(factors)
        N = len(self._trained[0].dy)
        self._add_sums(0, N, slots_TK[0])

    def _propagate(self, dlogits_NE: Array, factors: Mapping[str, Factors]) -> None:
        """Compute the gradient at each layer's output, and write the factors."""
        self._sequence.backward(dlogits_NE, needs_dx=False)
        for layer in self._trained:
            layer.write_factors(factors)

    def _add_sums(self, first: int, last: int, slot_K: Array) -> None:
        """Overwrite a slot with the sum of the gradients of the examples `first` … `last`-1."""
        slot_K[:] = 0
        sums = self._network.tile_sums.views(slot_K)
        for layer in self._trained:
            layer.add_sums(first, last, sums)
