"""Stages one after the other, as in a network and in the branches of a residual layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from partrain.kernels import layout
from partrain.kernels.call_list import Call
from partrain.network.execution import Array, Factors
from partrain.network.layers import is_trained
from partrain.network.stages.channel_norm import GroupNormStage
from partrain.network.stages.dropout import DropoutStage
from partrain.network.stages.flatten import FlattenStage
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.plain_convolution import PlainConvStage
from partrain.network.stages.pooling import AvgPoolStage, MaxPoolStage
from partrain.network.stages.stage import Gradient, Stage, WritesBorder, zeros_with_slack

# Says that the calls since the last time were those of a stage.
StageEnd = Callable[[Stage], None]


class StageSequence:
    """Computes stages in order.

    Parameters
    ----------
    stages : in order.
    num : the largest number of examples in a call.
    shared : the buffers that stages share, if they do.

    Attributes
    ----------
    stages : in order.
    first_input : the buffer with a border for the input of the first stage; None if that stage needs none.
    on_stage_end : called after the calls of each stage.
    """

    KERNELS = (layout.copy_into_border,)

    def __init__(self, stages: Sequence[Stage], num: int, shared: GradientBuffers | None = None) -> None:
        self.stages = tuple(stages)
        self._inputs = [
            bordered(stage.layers[0].input_shape, stage.border, num) if stage.border != (0, 0) else None
            for stage in stages
        ]
        self.first_input = self._inputs[0] if stages else None
        for k, (stage, following) in enumerate(itertools.pairwise(stages), start=1):
            if isinstance(stage, WritesBorder) and (wide := self._inputs[k]) is not None:
                stage.write_output_into(wide, following)
            if isinstance(following, GroupNormStage) and isinstance(stage, PlainConvStage):
                wide, border = stage.gradient_buffer
                if border != (0, 0):
                    following.write_gradient_into(wide, border)
            if shared is not None and isinstance(stage, GroupNormStage):
                if isinstance(following, PlainConvStage):
                    following.normalise_input_again(stage, shared)
                elif isinstance(following, MaxPoolStage | AvgPoolStage):  # they keep nothing of their input
                    shared.add_own(stage.output)
        trained = [k for k, stage in enumerate(stages) if is_trained(stage.layers[0])]
        self._first_trained = trained[0] if trained else len(stages)
        self.on_stage_end: StageEnd = lambda stage: None

    @property
    def border(self) -> tuple[int, int]:
        """The border that the first stage needs at its input."""
        return self.stages[0].border if self.stages else (0, 0)

    @property
    def writes_input(self) -> bool:
        """Whether a stage works in place on the input of the sequence."""
        return _works_in_place(self.stages)

    @property
    def writes_gradient(self) -> bool:
        """Whether a stage works in place on the gradient at the output of the sequence."""
        return _works_in_place(self.stages[::-1])

    def needs_gradients(self, needs_dx: bool) -> Iterator[tuple[Stage, bool]]:
        """Yield each stage, and whether it computes the gradient at its input, if the sequence does or does not."""
        for k, stage in enumerate(self.stages):
            yield stage, needs_dx or k > self._first_trained

    def forward(self, x: Array, call: Call) -> Array:
        """Make the calls that compute the output; `x` may have the border that the first stage needs."""
        for stage, wide in zip(self.stages, self._inputs, strict=True):
            if wide is not None and x.shape[1:] != wide.shape[1:]:
                call(layout.copy_into_border, x, stage.border, wide[: len(x)])
                x = wide[: len(x)]
            x = stage.forward(x, call)
            self.on_stage_end(stage)
        return x

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        """Make the calls of the stages' backward passes; return the gradient at the input if `needs_dx`."""
        dx: Gradient | None = dy
        for stage, stage_needs_dx in reversed(list(self.needs_gradients(needs_dx))):
            if not (needs_dx or stage_needs_dx or is_trained(stage.layers[0])):
                break
            assert dx is not None
            dx = stage.backward(dx, slots_TK, tile, factors, stage_needs_dx, call)
            self.on_stage_end(stage)
        return dx if needs_dx else None

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        """Write the gradients of the last `backward`'s examples again, scaled; see `Execution.sum_tiles`."""
        for stage in self.stages:
            if is_trained(stage.layers[0]):
                stage.sum_tiles(scales_N, slots_TK, tile, factors)  # type: ignore[attr-defined]


def bordered(shape: tuple[int, ...], border: tuple[int, int], num: int) -> Array:
    """Return zeros for `num` inputs of a shape (C, H, W), with channels last and a border."""
    C, H, W = shape
    return zeros_with_slack((num, H + 2 * border[0], W + 2 * border[1], C))


def _works_in_place(stages: Sequence[Stage]) -> bool:
    """Return whether the first of these stages, or the first behind a `flatten`, works in place."""
    for stage in stages:
        if not isinstance(stage, FlattenStage):
            return isinstance(stage, DropoutStage)
    return False
