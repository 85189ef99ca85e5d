"""The fast execution: float32, several tiles in a call, activations with channels last.

It gives the results of network.loops_execution up to rounding. network.stages has its stages.

A pass is a list of kernel calls (kernels.call_list). It is the same for all batches of a size, so the stages are asked
for it once, and one compiled call carries it out: 2 µs an example less than 25 calls from Python, or 8 with one tile.

Shapes: N examples, T tiles of them; M images of a split; H, W, C rows, columns (with the border), channels; E outputs;
K parameters whose gradients are summed by tile; L layers with parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import layout
from partrain.kernels.call_list import Call, CallList, address_of, call_now
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import NORM_KERNELS, Array, Factors, TrainingExamples, write_squared_norms
from partrain.network.layers import Layer
from partrain.network.network import Network, examples_per_call
from partrain.network.normalisation import Normalisation
from partrain.network.stages.call_order import OrderedCalls
from partrain.network.stages.channel_norm import BatchNormStage
from partrain.network.stages.dropout import DropoutStage
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.grouping import make_stages, stage_kernels
from partrain.network.stages.residual import ResidualStage
from partrain.network.stages.sequence import StageSequence, bordered
from partrain.network.stages.stage import Gradient, Stage

# Runs the calls of a stage, and takes the time: direction ("forward" or "backward"), number of the stage (that of the
# stages: the gather of the images), and the function to run.
TimeStage = Callable[[str, int, Callable[[], None]], None]
# Runs a call of a kernel, and takes the time: direction, name of the kernel, and the function to run.
TimeKernel = Callable[[str, str, Callable[[], None]], None]


class _Pass:
    """A forward or backward pass: its calls, by stage. First it is recorded, then it runs.

    Parameters
    ----------
    direction : "forward" or "backward".
    num : examples of the pass.
    variables, parameters : the variables, and what moves, of CallList.
    scratch : see OrderedCalls.

    Attributes
    ----------
    result : the output.
    """

    def __init__(
        self, direction: str, num: int, variables: Sequence[Array], parameters: Array, scratch: Collection[int]
    ) -> None:
        self._direction, self._calls = direction, CallList(variables, parameters)
        self._recorded = OrderedCalls(num, variables, scratch)
        self.add: Call = self._recorded.add
        self.result = np.empty(0, np.float32)
        self._ends: list[tuple[int, int]] = []

    def end_stage(self, number: int) -> None:
        """Say that the calls since the last end are those of a stage."""
        self._recorded.end_stage(number)

    def end(self) -> None:
        """Say that all calls have been recorded."""
        self._recorded.make(self._calls.add, lambda stage: self._ends.append((stage, len(self._calls))))

    def run(
        self,
        variables: Sequence[Array],
        parameters: Array,
        time_stage: TimeStage | None,
        time_kernel: TimeKernel | None,
    ) -> None:
        """Make the calls with these arrays; one stage or one kernel after the other, if they are timed."""
        self._calls.point_to(variables)
        self._calls.move(parameters)
        first = 0
        if time_stage is not None:
            for number, last in self._ends:
                time_stage(self._direction, number, partial(self._calls.run, first, last))
                first = last
        elif time_kernel is not None:
            for name, last in self._calls.calls:
                time_kernel(self._direction, name, partial(self._calls.run, first, last))
                first = last
        else:
            self._calls.run()


class _Recording:
    """Tells the pass that is being recorded where the calls of each stage end.

    It refers to no stage: an execution in a cycle of references would keep the shared arrays in memory.

    Attributes
    ----------
    recorded : the pass; None while nothing is recorded.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.recorded: _Pass | None = None
        self._number_of = {id(stage): number for number, stage in enumerate(stages)}

    def end_stage(self, stage: Stage) -> None:
        """Note that the calls since the last end are those of a stage."""
        if self.recorded is not None:
            self.recorded.end_stage(self._number_of[id(stage)])


class FastExecution:
    """Computes several tiles in a call.

    Parameters
    ----------
    network : the network's shapes.
    parameters : float32 vector (network.parameters.size,).
    normalisation : the normalisation of the images.
    tile : number of examples per tile.
    keeps_gradients : whether `sum_tiles` is called. If not, stages share the buffers for gradients.

    Attributes
    ----------
    parameters : the vector whose current values `forward` and `backward` read; another one may take its place.
    stages : all of them, with whether they compute the gradient at their input: those in the branches of a residual
        layer before its own, which adds the branches.
    time_stage : None, or what runs each stage; `bench` sets it. It runs a stage with several parts once for each part.
    time_kernel : None, or what runs each call of a kernel.
    """

    KERNELS = (layout.gather_normalised, *StageSequence.KERNELS, *CallList.KERNELS, *NORM_KERNELS)

    def __init__(
        self,
        network: Network,
        parameters: Array,
        normalisation: Normalisation,
        tile: int,
        *,
        keeps_gradients: bool = True,
    ) -> None:
        self.capacity = num = examples_per_call(tile, network)
        self._network, self._tile = network, tile
        self.parameters = self._own_parameters = parameters
        self._example_slots_NK = np.zeros((num, network.tile_sums.size), np.float32)
        self._mean = np.array(normalisation.mean, np.float32)
        self._inverse_std = 1 / np.array(normalisation.std, np.float32)
        self._keeps_gradients = keeps_gradients
        shared = None if keeps_gradients else GradientBuffers()
        self._sequence = make_stages(network.layers, network, network.parameters.views(parameters), num, shared)
        self._scratch = frozenset() if shared is None else frozenset(shared.scratch)
        # The images go into the buffer of the first stage, with its border if it needs one.
        self._border = self._sequence.border
        self._images = self._sequence.first_input
        if self._images is None:
            self._images = bordered(network.input_shape, (0, 0), num)
        self.stages: list[tuple[Stage, bool]] = list(_every_stage(self._sequence, False))
        self._recording = _Recording([stage for stage, _ in self.stages])
        for sequence in _every_sequence(self._sequence):
            sequence.on_stage_end = self._recording.end_stage
        self._dropouts = [stage.factors for stage, _ in self.stages if isinstance(stage, DropoutStage)]
        self._batch_norms = [stage for stage, _ in self.stages if isinstance(stage, BatchNormStage)]
        for stage in self._batch_norms:
            stage.tile = tile
        # Whether a pass of training differs from others: it drops, or normalises by its own statistics.
        self._trains = False
        self._passes: dict[Hashable, _Pass] = {}
        self.time_stage: TimeStage | None = None
        self.time_kernel: TimeKernel | None = None

    @classmethod
    def kernels(cls, layers: Iterable[Layer]) -> tuple[Kernel, ...]:
        """Return the kernels that this execution calls for these layers."""
        return (*cls.KERNELS, *dict.fromkeys(stage_kernels(layers)))

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """See `execution.Execution`."""
        self._trains = bool(self._dropouts or self._batch_norms) and training is not None
        for stage in self._batch_norms:
            stage.trains = self._trains
        for factors in self._dropouts:
            factors.draw(training)
        variables = images_MCHW, indices_N
        key = ("forward", len(indices_N), images_MCHW.shape, images_MCHW.dtype, self._trains)
        if key not in self._passes:
            self._passes[key] = self._record_forward(images_MCHW, indices_N)
        self._passes[key].run(variables, self.parameters, self.time_stage, self.time_kernel)
        return self._passes[key].result

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        variables = [dlogits_NE, slots_TK]
        for rows in factors.values():
            variables += rows.inputs_ND, rows.deltas_NE
        key = ("backward", len(dlogits_NE), self._trains)
        if key not in self._passes:
            recorded = _Pass("backward", len(dlogits_NE), variables, self._own_parameters, self._scratch)
            self._passes[key] = self._recording.recorded = recorded
            self._propagate(dlogits_NE, slots_TK, self._tile, factors, recorded.add)
            recorded.end()
            self._recording.recorded = None
        self._passes[key].run(variables, self.parameters, self.time_stage, self.time_kernel)

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """See `execution.Execution`; only with the parameters of the constructor."""
        assert address_of(self.parameters) == address_of(self._own_parameters)
        slots_NK = self._example_slots_NK[: len(dlogits_NE)]
        self._propagate(dlogits_NE, slots_NK, 1, factors, call_now)
        write_squared_norms(self._network, slots_NK, factors, squared_norms_NL)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        assert self._keeps_gradients
        self._sequence.sum_tiles(scales_N, slots_TK, self._tile, factors)

    def _record_forward(self, images_MCHW: Array, indices_N: NDArray[np.int64]) -> _Pass:
        variables = images_MCHW, indices_N
        recorded = _Pass("forward", len(indices_N), variables, self._own_parameters, self._scratch)
        self._recording.recorded = recorded
        call = recorded.add
        assert self._images is not None
        x = self._images[: len(indices_N)]
        call(layout.gather_normalised, images_MCHW, indices_N, self._mean, self._inverse_std, self._border, x)
        recorded.end_stage(len(self.stages))
        recorded.result = self._sequence.forward(x, call)
        recorded.end()
        self._recording.recorded = None
        return recorded

    def _propagate(
        self, dlogits_NE: Array, slots_TK: Array, tile: int, factors: Mapping[str, Factors], call: Call
    ) -> None:
        """Compute the gradient at each stage's output; each stage writes the gradients of its parameters."""
        self._sequence.backward(Gradient(dlogits_NE, 1, 1), slots_TK, tile, factors, False, call)


def _every_stage(sequence: StageSequence, needs_dx: bool) -> Iterator[tuple[Stage, bool]]:
    for stage, stage_needs_dx in sequence.needs_gradients(needs_dx):
        if isinstance(stage, ResidualStage):
            for branch in (stage.body, stage.shortcut):
                yield from _every_stage(branch, stage_needs_dx)
        yield stage, stage_needs_dx


def _every_sequence(sequence: StageSequence) -> Iterator[StageSequence]:
    yield sequence
    for stage in sequence.stages:
        if isinstance(stage, ResidualStage):
            for branch in (stage.body, stage.shortcut):
                yield from _every_sequence(branch)
