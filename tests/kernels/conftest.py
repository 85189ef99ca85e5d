"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling; T tiles.
"""

from __future__ import annotations

import pytest

from partrain.kernels import (
    convolution,
    convolution_backward,
    convolution_weights,
    loops_convolution,
    max_pool,
    patch_vectors,
    plane_convolution,
    toom_cook_convolution,
    toom_cook_convolution_1d,
)
from partrain.kernels.compiler.loading import load


@pytest.fixture(scope="session")
def convolution_kernels():
    of_loops = (
        loops_convolution.conv2d_forward,
        loops_convolution.conv2d_backward_input,
        loops_convolution.conv2d_backward_weights,
    )
    load(of_loops, "float32")
    load(of_loops, "float64")
    fast = (
        convolution.pack_filters,
        convolution.conv2d_forward,
        patch_vectors.pack_patch_vectors,
        convolution_backward.conv2d_backward_winners,
        convolution_weights.conv2d_backward_weights,
        max_pool.max_pool_forward,
        plane_convolution.conv2d_pooled_forward,
    )
    load(fast, "float32")


@pytest.fixture(scope="session")
def toom_cook_kernels(convolution_kernels):
    load(
        (
            toom_cook_convolution_1d.transform_filters_1d,
            toom_cook_convolution_1d.conv2d_forward_1d,
            toom_cook_convolution.transform_filters_3x3,
            toom_cook_convolution.conv2d_forward_3x3,
            toom_cook_convolution.transform_filters_5x5,
            toom_cook_convolution.conv2d_forward_5x5,
        ),
        "float32",
    )
