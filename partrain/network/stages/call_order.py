"""The order of the calls of a pass: a few examples go through several kernels, while their numbers are in the cache.

A kernel goes through all examples of a call before the next one starts. With 16 examples, their numbers come back from
the third-level cache or from memory each time: three quarters of the time of a normalisation, and what two processes
compete for. So neighbouring calls of kernels that compute each example by itself are taken apart: a part of the
examples goes through all of them, then the next part. This changes no number.

Arrays may have several rows for each example: pieces, of which a part has some, if one example is too large.

Buffers whose numbers are all written and read within such a part are the same memory for every part: they are never
written to memory. Depthwise separable convolutions on 3x64x64 take a seventh less time, with the pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partrain.kernels import (
    activations,
    avg_pool,
    channel_normalisation,
    convolution,
    layer_normalisation,
    layout,
    loops,
    max_pool,
    normalisation_gradients,
    patch_vectors,
    plane_convolution,
    residual,
    tap_convolution,
    toom_cook_convolution,
    toom_cook_convolution_1d,
    toom_cook_weights,
)
from partrain.kernels.call_list import Call, address_of
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.lanes import with_lanes
from partrain.kernels.simd.vectors import LANES

# Kernels that compute each example by itself, and the places of the arguments that hold examples, one after the other:
# those that are read, and those that are only written. Where a call has a row for each example in an array that others
# share, it is told their numbers.
_BY_EXAMPLE: dict[Kernel, tuple[tuple[int, ...], tuple[int, ...]]] = {
    layout.copy_numbers: ((0,), (1,)),
    layout.copy_into_border: ((0,), (2,)),
    layout.place_gradient: ((0,), (4,)),
    layout.flatten_forward: ((0,), (1,)),
    layout.flatten_backward_input: ((0,), (1,)),
    layout.repeat_channels: ((0,), (2,)),
    layout.sum_repeated_channels: ((0,), (2,)),
    convolution.conv2d_forward: ((0,), (5,)),
    plane_convolution.conv2d_pooled_forward: ((0,), (4, 5)),
    toom_cook_convolution_1d.conv2d_forward_1d: ((0,), (4, 5, 6)),
    toom_cook_convolution.conv2d_forward_3x3: ((0,), (4, 5, 6)),
    toom_cook_convolution.conv2d_forward_5x5: ((0,), (4, 5, 6)),
    tap_convolution.conv2d_over_taps: ((0,), (8,)),
    tap_convolution.depthwise_over_taps: ((0,), (8,)),
    tap_convolution.conv2d_backward_weights_over_taps: ((0, 1, 2), ()),
    tap_convolution.depthwise_backward_weights_over_taps: ((0, 1, 2), ()),
    tap_convolution.sum_over_places: ((0, 2), ()),
    toom_cook_weights.conv2d_backward_weights_2d: ((0, 1, 3), ()),
    max_pool.max_pool_forward: ((0,), (4, 5)),
    max_pool.max_pool_backward_input: ((0, 3), (4,)),
    avg_pool.avg_pool_forward: ((0,), (4,)),
    avg_pool.avg_pool_backward_input: ((0,), (7,)),
    loops.relu_forward: ((0,), (1,)),
    loops.relu_backward_input: ((0, 1), (2,)),
    residual.add_branches: ((0, 1), (5,)),
    residual.add_branch_gradients: ((0, 1, 3), (5,)),
    channel_normalisation.add_moments: ((0, 1), ()),
    channel_normalisation.finish_group_moments: ((4, 5, 6), ()),
    channel_normalisation.normalise: ((0, 1), (9,)),
    channel_normalisation.normalise_by_averages: ((0,), (8,)),
    normalisation_gradients.add_gradient_sums: ((0, 1, 2), ()),
    normalisation_gradients.finish_group_gradient: ((3, 4, 5, 6, 7, 8), ()),
    normalisation_gradients.normalise_backward_input: ((0, 1, 2), (13,)),
    layer_normalisation.layer_norm_forward: ((0,), (4, 5, 6)),
    activations.leaky_relu_forward: ((0,), (2, 3)),
    **dict.fromkeys(
        (
            activations.gelu_forward,
            activations.gelu_by_tanh_forward,
            activations.silu_forward,
            activations.tanh_forward,
            activations.sigmoid_forward,
        ),
        ((0,), (1, 2)),
    ),
    activations.multiply_derivatives: ((0, 1), (2,)),
}
# Kernels that read parameters alone: they run once, for the first part.
_OF_PARAMETERS = {
    convolution.pack_filters,
    toom_cook_convolution_1d.transform_filters_1d,
    toom_cook_convolution.transform_filters_3x3,
    toom_cook_convolution.transform_filters_5x5,
    tap_convolution.pack_taps,
    tap_convolution.flip_filters,
    patch_vectors.pack_patch_vectors,
}
# Kernels that write nothing but the gradients of parameters, and read sums that no other one overwrites: they may run
# after the others.
_OF_GRADIENTS = {
    normalisation_gradients.write_parameter_gradients,
    normalisation_gradients.write_statistics,
}

# The bytes of a part's largest array. A convolution and a normalisation have four such arrays that stay in the
# second-level cache of most processors; with smaller parts, filters and their sums go through it more often.
PART_BYTES = 2**18
# Neighbouring calls are taken apart together if their largest arrays differ by no more than this factor: deeper layers
# have small images, of which many are needed for a fast convolution.
_SIMILAR = 1.5
# A call whose arrays are smaller by this factor has a few numbers for each example.
_SMALL = 16


# Is told the number of the stage whose call was the last one.
StageEnd = Callable[[int], None]


@dataclass
class _Pending:
    kernel: Kernel
    listed: Kernel  # its version that is in the lists above
    arguments: tuple[Any, ...]
    stage: int | None = None

    @property
    def places(self) -> tuple[int, ...]:
        read, written = _BY_EXAMPLE.get(self.listed, ((), ()))
        return read + written

    @property
    def largest(self) -> int:
        """The bytes of the largest array of examples."""
        return max(int(self.arguments[place].nbytes) for place in self.places)

    def accesses(self) -> Iterator[tuple[int, bool]]:
        """Yield the address of each array, and whether it is only written; what is read comes first."""
        _, written = _BY_EXAMPLE.get(self.listed, ((), ()))
        for is_written in (False, True):
            for place, argument in enumerate(self.arguments):
                if isinstance(argument, np.ndarray) and (place in written) == is_written:
                    yield address_of(argument), is_written

    def part(self, first: int, last: int, num: int, brief: Collection[int]) -> tuple[Any, ...]:
        """Return the arguments for the rows `first` … `last`-1 of `num`; of `brief` arrays, the first ones."""
        arguments = list(self.arguments)
        for place in self.places:
            array = arguments[place]
            step = len(array) // num
            start = 0 if address_of(array) in brief else first * step
            arguments[place] = array[start : start + (last - first) * step]
        return tuple(arguments)


class OrderedCalls:
    """Takes the calls of a pass, and makes them in their final order.

    Parameters
    ----------
    num : examples of the pass.
    variables : arrays that other ones take the place of: calls with them are not taken apart.
    scratch : addresses of buffers that no other pass reads. If all that is written into one is read before the next
        part of the examples is computed, then all parts use the same memory, which stays in the cache.
    """

    def __init__(
        self, num: int, variables: Sequence[np.ndarray[Any, Any]], scratch: Collection[int] = frozenset()
    ) -> None:
        self._num, self._scratch = num, scratch
        self._variables = {address_of(array) for array in variables if array.size}
        self._pending: list[_Pending] = []

    def add(self, called: Kernel, *arguments: Any) -> None:
        """Add a call."""
        self._pending.append(_Pending(called, with_lanes(called, LANES), arguments))

    def end_stage(self, stage: int) -> None:
        """Say that the calls since the last end are those of a stage."""
        for pending in reversed(self._pending):
            if pending.stage is not None:
                break
            pending.stage = stage

    def make(self, call: Call, end: StageEnd) -> None:
        """Make all calls by `call`; say by `end(stage)` after each one whose it was."""
        groups = list(self._groups())
        for group, brief in zip(groups, self._brief(groups), strict=True):
            self._make_together(group, brief, call, end)
        self._pending.clear()

    def _groups(self) -> Iterator[list[_Pending]]:
        """Yield the calls that are taken apart together; each other one by itself."""
        together: list[_Pending] = []
        largest = 0
        for pending in self._pending:
            if self._is_by_example(pending):
                if largest and not self._is_similar(pending.largest, largest) and pending.largest > largest / _SMALL:
                    yield together
                    together, largest = [], 0
                largest = max(largest, pending.largest)
                together.append(pending)
            elif pending.listed in _OF_PARAMETERS or pending.listed in _OF_GRADIENTS:
                together.append(pending)
            else:
                yield together
                yield [pending]
                together, largest = [], 0
        yield together

    def _is_similar(self, size: int, largest: int) -> bool:
        # Neither has a part of more than one example.
        both_alone = 2 * min(size, largest) > PART_BYTES * self._num
        return both_alone or largest / _SIMILAR <= size <= largest * _SIMILAR

    def _is_by_example(self, pending: _Pending) -> bool:
        """Return whether a call can be taken apart: its arrays have a part for each example, as parameters have not."""
        arrays = [pending.arguments[place] for place in pending.places]
        return bool(arrays) and not any(
            len(array) % self._num or (array.size and address_of(array) in self._variables) for array in arrays
        )

    def _brief(self, groups: Sequence[Sequence[_Pending]]) -> list[set[int]]:
        """Return the scratch buffers of each group whose numbers neither come from another group nor go to one."""
        result: list[set[int]] = []
        is_awaited: dict[int, bool] = {}  # whether the next group with a buffer reads what is in it
        for group in reversed(groups):
            begins_with_write: dict[int, bool] = {}
            for pending in group:
                for address, is_written in pending.accesses():
                    if address in self._scratch:
                        begins_with_write.setdefault(address, is_written)
            result.append({a for a, is_written in begins_with_write.items() if is_written and not is_awaited.get(a)})
            is_awaited |= {a: not is_written for a, is_written in begins_with_write.items()}
        return result[::-1]

    def _make_together(self, together: Sequence[_Pending], brief: set[int], call: Call, end: StageEnd) -> None:
        by_example = [pending for pending in together if self._is_by_example(pending)]
        rows = (len(pending.arguments[place]) for pending in by_example for place in pending.places)
        num = math.gcd(*rows) if by_example else 1
        size = num
        if len(by_example) > 1:
            size = max(1, num * PART_BYTES // max(1, *(pending.largest for pending in by_example)))
            if 2 * size > num:
                size = num
        for first in range(0, num, size):
            for pending in together:
                if self._is_by_example(pending):
                    _make(pending, pending.part(first, min(first + size, num), num, brief), call, end)
                elif first == 0 and pending.listed not in _OF_GRADIENTS:
                    _make(pending, pending.arguments, call, end)
        for pending in together:
            if pending.listed in _OF_GRADIENTS:
                _make(pending, pending.arguments, call, end)


def _make(pending: _Pending, arguments: tuple[Any, ...], call: Call, end: StageEnd) -> None:
    call(pending.kernel, *arguments)
    assert pending.stage is not None
    end(pending.stage)
