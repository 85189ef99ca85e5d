"""The fast execution: float32, several tiles in a call, activations with channels last.

It gives the results of network.loops_execution up to rounding. network.stages has its stages.

A pass is a list of kernel calls (kernels.call_list). It is the same for all batches of a size, so the stages are asked
for it once, and one compiled call carries it out: 2 µs an example less than 25 calls from Python, or 8 with one tile.

Shapes: N examples, T tiles of them; M images of a split; H, W, C rows, columns (with the border), channels; E outputs;
K parameters whose gradients are summed by tile; L layers with parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import layout
from partrain.kernels.call_list import Call, CallList, call_now
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import NORM_KERNELS, Array, Factors, TrainingExamples, write_squared_norms
from partrain.network.layers import Layer
from partrain.network.network import Network, examples_per_call
from partrain.network.normalisation import Normalisation
from partrain.network.stages.dropout import DropoutStage
from partrain.network.stages.grouping import make_stages, stage_kernels
from partrain.network.stages.stage import Gradient, Stage, TrainedStage, zeros_with_slack

# Runs the calls of a stage, and takes the time: direction ("forward" or "backward"), number of the stage (that of the
# stages: the gather of the images), and the function to run.
TimeStage = Callable[[str, int, Callable[[], None]], None]


class _Pass:
    """A forward or backward pass: its calls, by stage.

    Attributes
    ----------
    result : the output.
    """

    def __init__(self, direction: str, variables: Sequence[Array]) -> None:
        self._direction, self.calls = direction, CallList(variables)
        self.result = np.empty(0, np.float32)
        self._ends: list[tuple[int, int]] = []

    def end_stage(self, number: int) -> None:
        """Say that the calls since the last end are those of a stage."""
        self._ends.append((number, len(self.calls)))

    def run(self, variables: Sequence[Array], time_stage: TimeStage | None) -> None:
        """Make the calls with these arrays; by stage, if they are timed."""
        self.calls.point_to(variables)
        if time_stage is None:
            self.calls.run()
            return
        first = 0
        for number, last in self._ends:
            time_stage(self._direction, number, partial(self.calls.run, first, last))
            first = last


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
    stages : in order.
    time_stage : None, or what runs each stage; `bench` sets it.
    """

    KERNELS = (layout.gather_normalised, layout.copy_into_border, *CallList.KERNELS, *NORM_KERNELS)

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
        self._drops = False
        self._passes: dict[Hashable, _Pass] = {}
        self.time_stage: TimeStage | None = None

    @classmethod
    def kernels(cls, layers: Iterable[Layer]) -> tuple[Kernel, ...]:
        """Return the kernels that this execution calls for these layers."""
        return (*cls.KERNELS, *dict.fromkeys(stage_kernels(layers)))

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """See `execution.Execution`."""
        self._drops = bool(self._dropouts) and training is not None
        for factors in self._dropouts:
            factors.draw(training)
        variables = images_MCHW, indices_N
        key = ("forward", len(indices_N), images_MCHW.shape, images_MCHW.dtype, self._drops)
        if key not in self._passes:
            self._passes[key] = self._record_forward(images_MCHW, indices_N)
        self._passes[key].run(variables, self.time_stage)
        return self._passes[key].result

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        variables = [dlogits_NE, slots_TK]
        for rows in factors.values():
            variables += rows.inputs_ND, rows.deltas_NE
        key = ("backward", len(dlogits_NE), self._drops)
        if key not in self._passes:
            recorded = self._passes[key] = _Pass("backward", variables)
            self._propagate(dlogits_NE, slots_TK, self._tile, factors, recorded.calls.add, recorded.end_stage)
        self._passes[key].run(variables, self.time_stage)

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """See `execution.Execution`."""
        slots_NK = self._example_slots_NK[: len(dlogits_NE)]
        self._propagate(dlogits_NE, slots_NK, 1, factors, call_now)
        write_squared_norms(self._network, slots_NK, factors, squared_norms_NL)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        for stage in self.stages:
            if stage.layers[0].parameters:
                trained = cast(TrainedStage, stage)
                trained.sum_tiles(scales_N, slots_TK, self._tile, factors)

    def _record_forward(self, images_MCHW: Array, indices_N: NDArray[np.int64]) -> _Pass:
        recorded = _Pass("forward", (images_MCHW, indices_N))
        call, N = recorded.calls.add, len(indices_N)
        first = self._inputs[0]
        assert first is not None
        y = first[:N]
        call(layout.gather_normalised, images_MCHW, indices_N, self._mean, self._inverse_std, self.stages[0].border, y)
        recorded.end_stage(len(self.stages))
        for k, (stage, bordered) in enumerate(zip(self.stages, self._inputs, strict=True)):
            if bordered is not None and k > 0:
                call(layout.copy_into_border, y, stage.border, bordered[:N])
                y = bordered[:N]
            y = stage.forward(y, call)
            recorded.end_stage(k)
        recorded.result = y
        return recorded

    def _propagate(
        self,
        dlogits_NE: Array,
        slots_TK: Array,
        tile: int,
        factors: Mapping[str, Factors],
        call: Call,
        end_stage: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Compute the gradient at each stage's output; each stage writes the gradients of its parameters."""
        dy: Gradient | None = Gradient(dlogits_NE, 1, 1)
        for k in range(len(self.stages) - 1, self._first_trained - 1, -1):
            assert dy is not None
            dy = self.stages[k].backward(dy, slots_TK, tile, factors, needs_dx=k > self._first_trained, call=call)
            end_stage(k)


def _bordered(shape: tuple[int, ...], border: tuple[int, int], num: int) -> Array:
    """Return zeros for `num` inputs of a shape (C, H, W), with channels last and a border."""
    C, H, W = shape
    return zeros_with_slack((num, H + 2 * border[0], W + 2 * border[1], C))
