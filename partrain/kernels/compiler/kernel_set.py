"""The two sets of kernels that a configuration can choose: `loops`, the definition, and `fast`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from partrain.kernels import (
    augmentation,
    convolution,
    convolution_backward,
    dense,
    dropout,
    layout,
    loops,
    max_pool,
    norms,
    update,
)
from partrain.kernels.ipc import mailbox

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class KernelSet:
    """The kernels of a set that more than a network's layers need, and all of them.

    Attributes
    ----------
    name : "loops" or "fast".
    all : what every network may need, and must be loaded before any of them is called.
    dense_backward_weights : turns factors into a gradient; see `loops.dense_backward_weights`.
    augment : makes random variants of images. Like those of dropout it is not among `all`: it takes seconds to
        compile, and few trainings use it.
    in_pieces : whether the set has `update.update_parameters`, which makes an update by several threads.
    """

    name: str
    all: tuple[Kernel, ...]
    dense_backward_weights: Kernel
    augment: Kernel
    in_pieces: bool

    @property
    def for_coordinator(self) -> tuple[Kernel, ...]:
        """What a coordinator calls that computes no tiles itself."""
        return (*_COORDINATOR, self.dense_backward_weights, *(_IN_PIECES if self.in_pieces else ()))

    def for_training(self, *, augments: bool, drops: bool) -> tuple[Kernel, ...]:
        """Return what must be loaded for a training that augments its images, or not; with dropout, or without."""
        return (*self.all, *((self.augment,) if augments else ()), *(_DROPOUT if drops else ()))


_DROPOUT = (dropout.draw_factors, dropout.scale_by_factors)

_COORDINATOR = (
    loops.sum_slots,
    loops.first_not_finite,
    loops.adam_update,
    norms.slot_squared_norms,
    mailbox.post,
    mailbox.await_answer,
    mailbox.say,
)

_IN_PIECES = (update.begin_update, update.update_parameters, update.call_helpers)

_BOTH = (
    *_COORDINATOR,
    loops.relu_backward_input,
    loops.relu_forward,
    loops.softmax_cross_entropy,
    norms.factor_squared_norms,
    mailbox.await_news,
    mailbox.answer,
)

LOOPS = KernelSet(
    "loops",
    (
        *_BOTH,
        loops.gather_normalised,
        loops.conv2d_forward,
        loops.conv2d_backward_input,
        loops.conv2d_backward_weights,
        loops.max_pool_forward,
        loops.max_pool_backward_input,
        loops.dense_forward,
        loops.dense_backward_input,
        loops.dense_backward_weights,
    ),
    loops.dense_backward_weights,
    augmentation.augment_by_formula,
    in_pieces=False,
)

FAST = KernelSet(
    "fast",
    (
        *_BOTH,
        layout.gather_normalised,
        layout.flatten_forward,
        layout.flatten_backward_input,
        convolution.pack_filters,
        convolution.conv2d_forward,
        convolution_backward.pack_patch_vectors,
        convolution_backward.conv2d_backward_winners,
        convolution_backward.conv2d_backward_weights,
        max_pool.max_pool_forward,
        max_pool.max_pool_backward_input,
        dense.dense_forward,
        dense.dense_backward_input,
        dense.dense_backward_weights,
        *_IN_PIECES,
        update.update_units_ahead,
    ),
    dense.dense_backward_weights,
    augmentation.augment,
    in_pieces=True,
)


def kernel_set(name: str) -> KernelSet:
    """Return the set that `training.kernels` names."""
    return {"loops": LOOPS, "fast": FAST}[name]
