"""Lists of kernel calls: recorded once, and then carried out by one compiled call.

A call of a kernel from Python takes more than a microsecond, most of it to unpack the arguments; a pass through a small
network makes 25 calls. A list holds them as words: the address of the kernel's machine code, and what its arguments are
made of. `run_calls` reads the words and makes the calls.

    words of a call     its number of words, address, number of the signature, arguments
    of an argument      an array: its address and sizes; a pair: both numbers; a number: itself
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import (
    activations,
    avg_pool,
    channel_normalisation,
    convolution,
    convolution_backward,
    convolution_weights,
    dense,
    dropout,
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
from partrain.kernels.compiler.deferred import DeferredModule, cgutils, ir, types
from partrain.kernels.compiler.flags import Kernel, intrinsic, kernel, name_of, signatures_of
from partrain.kernels.simd.vectors import registers

_arrays = DeferredModule("partrain.kernels.compiler.plain_array")
_signatures = DeferredModule("numba.core.sigutils")

Array = NDArray[Any]
# Carries out a call, now or later: `call(kernel, *arguments)`.
Call = Callable[..., None]

# The kernels that a list may call, all with float32. Those that return nothing can be added.
_CALLED: tuple[Kernel, ...] = (
    layout.gather_normalised, layout.flatten_forward, layout.flatten_backward_input, layout.copy_numbers,
    layout.copy_into_border, convolution.pack_filters, convolution.conv2d_forward,
    plane_convolution.conv2d_pooled_forward,
    toom_cook_convolution_1d.transform_filters_1d, toom_cook_convolution_1d.conv2d_forward_1d,
    toom_cook_convolution.transform_filters_3x3, toom_cook_convolution.conv2d_forward_3x3,
    toom_cook_convolution.transform_filters_5x5, toom_cook_convolution.conv2d_forward_5x5,
    patch_vectors.pack_patch_vectors, convolution_backward.conv2d_backward_winners,
    convolution_weights.conv2d_backward_weights, max_pool.max_pool_forward, max_pool.max_pool_backward_input,
    dense.dense_forward, dense.dense_backward_input, loops.relu_forward, loops.relu_backward_input,
    dropout.scale_by_factors, residual.add_branches, residual.add_branch_gradients, layout.place_gradient,
    layout.repeat_channels, layout.sum_repeated_channels, tap_convolution.pack_taps, tap_convolution.conv2d_over_taps,
    tap_convolution.depthwise_over_taps, tap_convolution.conv2d_backward_weights_over_taps,
    tap_convolution.depthwise_backward_weights_over_taps, tap_convolution.sum_over_places,
    tap_convolution.flip_filters, avg_pool.avg_pool_forward, avg_pool.avg_pool_backward_input,
    channel_normalisation.add_moments, channel_normalisation.finish_batch_moments,
    channel_normalisation.finish_group_moments, channel_normalisation.normalise,
    channel_normalisation.normalise_by_averages, normalisation_gradients.add_gradient_sums,
    normalisation_gradients.finish_batch_gradient, normalisation_gradients.finish_group_gradient,
    normalisation_gradients.normalise_backward_input, normalisation_gradients.write_parameter_gradients,
    normalisation_gradients.write_statistics, layer_normalisation.layer_norm_forward,
    toom_cook_weights.conv2d_backward_weights_2d,
    layer_normalisation.layer_norm_backward, activations.leaky_relu_forward, activations.gelu_forward,
    activations.gelu_by_tanh_forward, activations.silu_forward, activations.tanh_forward, activations.sigmoid_forward,
    activations.multiply_derivatives,
)  # fmt: skip
_SIGNATURES = tuple(sorted({signature for k in _CALLED for signature in signatures_of(k, "float32")}))
_ARGUMENT = re.compile(r"UniTuple\(int64, 2\)|\w+\[[^\]]*\]|\w+")


@functools.cache
def _arguments_of(signature: str) -> tuple[str, ...]:
    """Return the types of the arguments of "void(…)"."""
    return tuple(_ARGUMENT.findall(signature.removeprefix("void")))


def _words_of(argument: Any, declared: str) -> list[int] | None:
    """Return the words of an argument, or None if it does not have the declared type."""
    element_type, _, dimensions = declared.partition("[")
    if dimensions:
        if not isinstance(argument, np.ndarray) or argument.dtype.name != element_type:
            return None
        if argument.ndim != dimensions.count(",") + 1 or not argument.flags.c_contiguous:
            return None
        return [address_of(argument), *argument.shape]
    if isinstance(argument, np.ndarray):
        return None
    return list(argument) if declared.startswith("UniTuple") else [int(argument)]


def address_of(array: Array) -> int:
    """Return where an array's first number is."""
    if not array.size:
        return 0
    return ctypes.addressof(ctypes.c_char.from_buffer(array))  # a fifth of the time of array.ctypes.data


class CallList:
    """Kernel calls, in order.

    Parameters
    ----------
    variables : arrays that other ones, of the same shapes, take the place of in a later run. All other arrays stay
        where they are; the caller keeps them.
    movable : arrays within this one move with it if a later run has it elsewhere.

    Attributes
    ----------
    calls : the name of each kernel, and the number of words up to the end of its call.
    """

    KERNELS: tuple[Kernel, ...]

    def __init__(self, variables: Sequence[Array], movable: Array | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self._shapes = [array.shape for array in variables]
        self._pointed_to: list[Array | None] = [None for _ in variables]
        self._words: list[int] = []
        self._of_variable: dict[int, list[int]] = {address_of(array): [] for array in variables if array.size}
        self._addresses = [self._of_variable.get(address_of(array), []) for array in variables]
        self._recorded: NDArray[np.int64] | None = None
        self._movable_at, self._movable_bytes = (0, 0) if movable is None else (address_of(movable), movable.nbytes)
        self._movable = movable
        self._moving: list[int] = []  # words that are addresses within `movable`

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self._words)

    def add(self, called: Kernel, *arguments: Any) -> None:
        """Add a call of a kernel, which must be loaded.

        Raises
        ------
        TypeError
            The kernel does not take these arguments.
        """
        for signature in signatures_of(called, "float32"):
            declared = _arguments_of(signature)
            parts = [_words_of(argument, d) for argument, d in zip(arguments, declared, strict=True)]
            if all(part is not None for part in parts):
                break
        else:
            raise TypeError(f"{called}: wrong arguments {[getattr(a, 'shape', a) for a in arguments]}")
        first = len(self._words)
        self._words += [0, called.addresses[signature], _SIGNATURES.index(signature)]
        for argument, part in zip(arguments, parts, strict=True):
            assert part is not None
            if isinstance(argument, np.ndarray) and argument.size and part[0] in self._of_variable:
                self._of_variable[part[0]].append(len(self._words))
            elif isinstance(argument, np.ndarray) and 0 <= part[0] - self._movable_at < self._movable_bytes:
                self._moving.append(len(self._words))
            self._words += part
        self._words[first] = len(self._words) - first
        self.calls.append((name_of(called), len(self._words)))

    def point_to(self, variables: Sequence[Array]) -> None:
        """Put arrays in the places of the variables; those that are there already cost nothing."""
        if self._recorded is None:
            self._recorded = np.array(self._words, np.int64)
        for number, (array, present) in enumerate(zip(variables, self._pointed_to, strict=True)):
            if array is present:
                continue
            assert array.shape == self._shapes[number]
            places = self._addresses[number]
            address, recorded = address_of(array) if places else 0, self._recorded.data
            for place in places:
                recorded[place] = address
            self._pointed_to[number] = array

    def move(self, movable: Array) -> None:
        """Put an array in the place of the movable one, after `point_to`."""
        assert self._recorded is not None
        if movable is self._movable:
            return
        assert movable.nbytes == self._movable_bytes
        distance, recorded = address_of(movable) - self._movable_at, self._recorded.data
        for place in self._moving:
            recorded[place] += distance  # a few places: by far faster than with an array of places
        self._movable, self._movable_at = movable, self._movable_at + distance

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Make the calls, or those of the words from `first` to `last`, which must be ends of calls."""
        assert self._recorded is not None, "run before point_to"
        run_calls(self._recorded, first, len(self._words) if last is None else last)


def call_now(called: Kernel, *arguments: Any) -> None:
    """Call a kernel from Python."""
    called(*arguments)


def _argument(context, builder, argument_type, words, first):
    """Return the value of an argument, and its number of words."""
    if isinstance(argument_type, types.Array):
        sizes = words[first + 1 : first + 1 + argument_type.ndim]
        return _arrays.plain_array(context, builder, argument_type, words[first], sizes), 1 + argument_type.ndim
    if isinstance(argument_type, types.UniTuple):
        return context.make_tuple(builder, argument_type, words[first : first + 2]), 2
    return context.cast(builder, words[first], types.int64, argument_type), 1


def _emit_call(context, builder, base, signature):
    """Emit a call with the arguments that the words at `base` describe."""
    argument_types, result_type = _signatures.normalize_signature(signature)
    count = 3 + sum(
        1 + t.ndim if isinstance(t, types.Array) else 2 if isinstance(t, types.UniTuple) else 1 for t in argument_types
    )
    words = [builder.load(builder.gep(base, [ir.Constant(registers.INT64, k)])) for k in range(count)]
    values, first = [], 3
    for argument_type in argument_types:
        value, size = _argument(context, builder, argument_type, words, first)
        values.append(value)
        first += size
    function_type = context.call_conv.get_function_type(result_type, argument_types)
    function = builder.inttoptr(words[1], function_type.as_pointer())
    status, _ = context.call_conv.call_function(builder, function, result_type, argument_types, values)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


@intrinsic
def _call(typing, words, at):
    """Make the call that the words from words[at] on describe."""

    def code(context, builder, signature, arguments):
        base = registers.address(context, builder, signature.args[0], *arguments)
        number = builder.load(builder.gep(base, [ir.Constant(registers.INT64, 2)]))
        done = builder.append_basic_block("done")
        switch = builder.switch(number, done)
        for k, called in enumerate(_SIGNATURES):
            block = builder.append_basic_block(f"signature{k}")
            switch.add_case(ir.Constant(registers.INT64, k), block)
            builder.position_at_end(block)
            _emit_call(context, builder, base, called)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(words, at), code


@kernel("void(int64[::1], int64, int64)")
def run_calls(words, first, last):
    """Make the calls that the words from `first` to `last` - 1 describe."""
    at = first
    while at < last:
        _call(words, at)
        at += words[at]


CallList.KERNELS = (run_calls,)
