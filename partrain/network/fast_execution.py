"""The fast execution: float32, several tiles in a call, activations with channels last.

It gives the results of network.loops_execution up to rounding. network.fast_stages has its stages.

Shapes: N examples, T tiles of them; M images of a split; H, W, C rows, columns (with the border), channels; E outputs;
K parameters whose gradients are summed by tile; L layers with parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import layout
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import NORM_KERNELS, Array, Factors, TrainingExamples, write_squared_norms
from partrain.network.fast_stages import (
    DropoutStage,
    Gradient,
    Stage,
    TrainedStage,
    make_stages,
    stage_kernels,
    zeros_with_slack,
)
from partrain.network.layers import Layer
from partrain.network.network import Network, examples_per_call
from partrain.network.normalisation import Normalisation


class FastExecution:
    """Computes several tiles in a call.

    Parameters
    ----------
    network : the network's shapes.
    parameters : float32 vector (network.parameters.size,); every call reads its current values.
    normalisation : the normalisation of the images.
    tile : number of examples per tile.

    Attributes
    ----------
    stages : in order; `bench` replaces them by stages that measure the time.
    """

    KERNELS = (layout.gather_normalised, *NORM_KERNELS)

    def __init__(self, network: Network, parameters: Array, normalisation: Normalisation, tile: int) -> None:
        self.capacity = num = examples_per_call(tile)
        self._network, self._tile = network, tile
        self._example_slots_NK = np.zeros((num, network.tile_sums.size), np.float32)
        self._mean = np.array(normalisation.mean, np.float32)
        self._inverse_std = 1 / np.array(normalisation.std, np.float32)
        self.stages: list[Stage] = make_stages(network, network.parameters.views(parameters), num)
        # A buffer with a border for the input of each stage that needs one; the images go into the first one's.
        self._inputs = [
            _bordered(stage.layers[0].input_shape, stage.border, num)
            if stage is self.stages[0] or stage.border != (0, 0)
            else None
            for stage in self.stages
        ]
        self._first_trained = next(k for k, stage in enumerate(self.stages) if stage.layers[0].parameters)
        self._dropouts = [stage.factors for stage in self.stages if isinstance(stage, DropoutStage)]

    @classmethod
    def kernels(cls, layers: Iterable[Layer]) -> tuple[Kernel, ...]:
        """Return the kernels that this execution calls for these layers."""
        return (*cls.KERNELS, *dict.fromkeys(stage_kernels(layers)))

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """See `execution.Execution`."""
        for factors in self._dropouts:
            factors.draw(training)
        N = len(indices_N)
        y = self._inputs[0]
        assert y is not None
        y = y[:N]
        border = self.stages[0].border
        layout.gather_normalised(images_MCHW, indices_N, self._mean, self._inverse_std, border, y)
        for stage, bordered in zip(self.stages, self._inputs, strict=True):
            if bordered is not None and bordered is not self._inputs[0]:
                (top, left), (_, H, W, _) = stage.border, y.shape
                bordered[:N, top : top + H, left : left + W] = y
                y = bordered[:N]
            y = stage.forward(y)
        return y

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        self._propagate(dlogits_NE, slots_TK, self._tile, factors)

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """See `execution.Execution`."""
        slots_NK = self._example_slots_NK[: len(dlogits_NE)]
        self._propagate(dlogits_NE, slots_NK, 1, factors)
        write_squared_norms(self._network, slots_NK, factors, squared_norms_NL)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        for stage in self.stages:
            if stage.layers[0].parameters:
                trained = cast(TrainedStage, stage)
                trained.sum_tiles(scales_N, slots_TK, self._tile, factors)

    def _propagate(self, dlogits_NE: Array, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        """Compute the gradient at each stage's output; each stage writes the gradients of its parameters."""
        dy: Gradient | None = Gradient(dlogits_NE, 1, 1)
        for k in range(len(self.stages) - 1, self._first_trained - 1, -1):
            assert dy is not None
            dy = self.stages[k].backward(dy, slots_TK, tile, factors, needs_dx=k > self._first_trained)


def _bordered(shape: tuple[int, ...], border: tuple[int, int], num: int) -> Array:
    """Return zeros for `num` inputs of a shape (C, H, W), with channels last and a border."""
    C, H, W = shape
    return zeros_with_slack((num, H + 2 * border[0], W + 2 * border[1], C))
