"""The sum of two branches, with a ReLU if one follows it."""

from __future__ import annotations

from collections.abc import Mapping

from partrain.kernels import layout, loops, residual
from partrain.kernels.call_list import Call
from partrain.network.execution import Array, Factors
from partrain.network.layers import Layer, Relu
from partrain.network.stages.channel_norm import GroupNormStage
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.sequence import StageSequence
from partrain.network.stages.stage import Gradient, Stage, rows_of, zeros_with_slack


class ResidualStage:
    """A residual layer: y = body(x) + shortcut(x), and max(y, 0) of it if a ReLU follows.

    Both branches read the input and the gradient, and some stages work in place: they get copies. A shortcut with
    layers always gets a copy of the gradient, because the last stage of each branch may scale its own (`sum_tiles`).

    If one such layer follows another, the first one writes its output where the body of the second one needs it, with a
    border, and the second one adds the gradients of its branches and takes them back through the ReLU in one go.

    Attributes
    ----------
    has_rectified_input : whether the gradient at the input is to be taken through a ReLU, whose output the input is.
    """

    KERNELS = (
        residual.add_branches,
        residual.add_branch_gradients,
        loops.relu_backward_input,
        layout.copy_numbers,
        layout.flatten_backward_input,
        *StageSequence.KERNELS,
    )
    followers = (Relu,)

    def __init__(self, layers: tuple[Layer, ...], body: StageSequence, shortcut: StageSequence, num: int) -> None:
        self.layers = layers
        self.body, self.shortcut = body, shortcut
        self._rectified = len(layers) > 1
        self._is_image = len(layers[0].output_shape) == 3
        output, inputs = (_channels_last(shape) for shape in (layers[0].output_shape, layers[0].input_shape))
        self._input_shape = inputs
        # A shortcut with layers needs another border, or none.
        self.border = (0, 0) if shortcut.stages or body.writes_input else body.border
        self.has_rectified_input = self._gives_rectified_output = False
        self._x: dict[int, Array] = {}
        self._y_border = (0, 0)
        self._y = zeros_with_slack((num, *output))
        self._dy, self._dx = zeros_with_slack((num, *output)), zeros_with_slack((num, *inputs))
        self._copies_gradient = bool(shortcut.stages) or body.writes_gradient
        self._dx_of_branch: dict[int, Array] = {}
        self._dy_of_shortcut = zeros_with_slack((num if self._copies_gradient else 0, *output))
        self._x_of_body, self._x_of_shortcut = (
            zeros_with_slack((num if branch.writes_input else 0, *inputs)) for branch in (body, shortcut)
        )

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dy, self._dx = buffers.take("sum", self._dy), buffers.take("dx", self._dx)
        self._dy_of_shortcut = buffers.take("shortcut", self._dy_of_shortcut)
        for branch in (self.body, self.shortcut):
            if branch.stages and isinstance(last := branch.stages[-1], GroupNormStage):
                buffers.add_own(last.output)  # this stage only adds it

    def write_output_into(self, wide: Array, following: Stage) -> None:
        if self._is_image and isinstance(following, ResidualStage):
            self._y, self._y_border = wide, following.border

    def follow(self, previous: Stage) -> None:
        """Take the gradient at the input through the ReLU of the stage before, if that is such a stage."""
        if isinstance(previous, ResidualStage) and previous._rectified:
            self.has_rectified_input = previous._gives_rectified_output = True

    def forward(self, x: Array, call: Call) -> Array:
        N = len(x)
        self._x[N], y = x, self._y[:N]
        of_body = self._forward_branch(self.body, self._x_of_body, x, call)
        of_shortcut = self._forward_branch(self.shortcut, self._x_of_shortcut, x, call)
        border = (0, 0) if self.shortcut.stages else self.border
        call(
            residual.add_branches,
            _images(of_body), _images(of_shortcut), border, self._rectified, self._y_border, _images(y),
        )  # fmt: skip
        return y

    def _forward_branch(self, branch: StageSequence, own_x: Array, x: Array, call: Call) -> Array:
        if branch.writes_input:
            own = own_x[: len(x)]
            call(layout.copy_numbers, x.reshape(-1), own.reshape(-1))
            x = own
        return branch.forward(x, call)

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        dy = self._gradient_of_sum(dy, call)
        dy_of_shortcut = dy
        if self._copies_gradient:
            own = self._dy_of_shortcut[:N]
            call(layout.copy_numbers, dy.rows_ND.reshape(-1), own.reshape(-1))
            dy_of_shortcut = self._gradient(own)
        self.body.on_stage_end(self)
        of_body = self.body.backward(dy, slots_TK, tile, factors, needs_dx, call)
        of_shortcut = self.shortcut.backward(dy_of_shortcut, slots_TK, tile, factors, needs_dx, call)
        if not needs_dx:
            return None
        assert of_body is not None
        assert of_shortcut is not None
        dx = self._dx[:N]
        a, b = self._channels_last_rows(0, of_body, call), self._channels_last_rows(1, of_shortcut, call)
        call(
            residual.add_branch_gradients,
            a.reshape(_images(dx).shape), b.reshape(_images(dx).shape), self.has_rectified_input, _images(self._x[N]),
            self.border, _images(dx),
        )  # fmt: skip
        return self._gradient(dx)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        for branch in (self.body, self.shortcut):
            branch.sum_tiles(scales_N, slots_TK, tile, factors)

    def _gradient_of_sum(self, dy: Gradient, call: Call) -> Gradient:
        """Return the gradient at body(x) + shortcut(x), with channels last, which the body may write to."""
        own = self._dy[: len(dy.rows_ND)]
        rows = dy.rows_ND
        if self._is_image and dy.channel_step != 1:
            call(layout.flatten_backward_input, rows, own)
            rows = own
        if self._rectified and not self._gives_rectified_output:
            y = self._y[: len(own)].reshape(-1)
            call(loops.relu_backward_input, rows.reshape(-1), y, own.reshape(-1))
            rows = own
        return self._gradient(own) if rows is own else dy

    def _channels_last_rows(self, branch: int, dx: Gradient, call: Call) -> Array:
        """Return the gradient at the input of branch 0 or 1 with channels last."""
        if len(self._input_shape) == 1 or dx.channel_step == 1:
            return dx.rows_ND
        if branch not in self._dx_of_branch:  # the branch begins with `flatten`, as few do
            self._dx_of_branch[branch] = zeros_with_slack(self._dx.shape)
        rows = self._dx_of_branch[branch][: len(dx.rows_ND)]
        call(layout.flatten_backward_input, dx.rows_ND, rows)
        return rows

    def _gradient(self, dy: Array) -> Gradient:
        return rows_of(dy) if dy.ndim == 4 else Gradient(dy, 1, 1)


def _images(x: Array) -> Array:
    """Return images as they are, and vectors as images of one place."""
    return x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] + shape[:1] if len(shape) == 3 else shape
