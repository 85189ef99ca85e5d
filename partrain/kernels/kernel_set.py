"""The two sets of kernels that a configuration can choose: `loops`, the definition, and `fast`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from partrain.kernels import convolution, dense, loops

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class KernelSet:
    """One kernel for each operation; what each computes is told in `kernels.loops`."""

    gather_normalised: Kernel = loops.gather_normalised
    conv2d_forward: Kernel = loops.conv2d_forward
    conv2d_backward_input: Kernel = loops.conv2d_backward_input
    conv2d_backward_weights: Kernel = loops.conv2d_backward_weights
    max_pool_forward: Kernel = loops.max_pool_forward
    max_pool_backward_input: Kernel = loops.max_pool_backward_input
    relu_forward: Kernel = loops.relu_forward
    relu_backward_input: Kernel = loops.relu_backward_input
    dense_forward: Kernel = loops.dense_forward
    dense_backward_input: Kernel = loops.dense_backward_input
    dense_backward_weights: Kernel = loops.dense_backward_weights
    softmax_cross_entropy: Kernel = loops.softmax_cross_entropy
    sum_slots: Kernel = loops.sum_slots
    first_not_finite: Kernel = loops.first_not_finite
    adam_update: Kernel = loops.adam_update

    def __iter__(self) -> Iterator[Kernel]:
        return (getattr(self, field.name) for field in fields(self))


LOOPS = KernelSet()
FAST = replace(
    LOOPS,
    conv2d_forward=convolution.conv2d_forward,
    conv2d_backward_input=convolution.conv2d_backward_input,
    conv2d_backward_weights=convolution.conv2d_backward_weights,
    dense_forward=dense.dense_forward,
    dense_backward_input=dense.dense_backward_input,
    dense_backward_weights=dense.dense_backward_weights,
)


def kernel_set(name: str) -> KernelSet:
    """Return the set that `training.kernels` names: "loops" or "fast"."""
    return {"loops": LOOPS, "fast": FAST}[name]
