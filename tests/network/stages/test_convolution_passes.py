"""Shapes: C, H, W input channels, rows, columns; F filters."""

from __future__ import annotations

import pytest

from partrain.config.schema.layers import Conv
from partrain.kernels import convolution, toom_cook_convolution
from partrain.network.layer_building import build_layers
from partrain.network.stages.convolution_passes import forward_pass, sums_by_toom_cook

DIRECT = convolution.conv2d_forward
ONE_DIMENSION, TWO_DIMENSIONS = toom_cook_convolution.conv2d_forward_1d, toom_cook_convolution.conv2d_forward_2d

# This decides the bits: another choice is another version of the bits.
CHOICES = {
    "article, first layer": ((1, 28, 28), Conv(filters=8, kernel=5), DIRECT),
    "article, second layer": ((8, 24, 24), Conv(filters=8, kernel=5), ONE_DIMENSION),
    "LeNet-5, second layer": ((6, 14, 14), Conv(filters=16, kernel=5), ONE_DIMENSION),
    "flat filters": ((16, 30, 30), Conv(filters=16, kernel=[2, 5]), ONE_DIMENSION),
    "CIFAR-10, first layer": ((3, 32, 32), Conv(filters=32, kernel=3, padding=1), DIRECT),
    "CIFAR-10, second layer": ((32, 32, 32), Conv(filters=32, kernel=3, padding=1), TWO_DIMENSIONS),
    "few channels": ((7, 32, 32), Conv(filters=32, kernel=3), DIRECT),
    "other filters": ((32, 32, 32), Conv(filters=32, kernel=4), DIRECT),
    "high filters": ((32, 32, 32), Conv(filters=32, kernel=[5, 3]), DIRECT),
    "a stride": ((32, 32, 32), Conv(filters=32, kernel=3, stride=[1, 2]), DIRECT),
    "a wide border": ((32, 32, 32), Conv(filters=32, kernel=3, padding=[0, 2]), DIRECT),
    "few outputs": ((64, 5, 5), Conv(filters=64, kernel=3), DIRECT),
    "tiles that are half empty": ((8, 7, 7), Conv(filters=8, kernel=3), DIRECT),
}


@pytest.mark.parametrize(("shape", "description", "kernel"), CHOICES.values(), ids=CHOICES)
def test_forward_pass_is_chosen_from_the_shapes(shape, description, kernel):
    (conv,) = build_layers([description], shape)
    assert kernel in forward_pass(conv).KERNELS


@pytest.mark.parametrize(
    ("shape", "conv", "expected"),
    [
        ((16, 32, 32), Conv(filters=16, kernel=3, padding=1), True),
        ((64, 8, 8), Conv(filters=64, kernel=3, padding=1, bias=False), True),
        ((16, 10, 10), Conv(filters=16, kernel=3), True),
        ((16, 32, 32), Conv(filters=8, kernel=3, padding=1), False),
        ((3, 32, 32), Conv(filters=16, kernel=3, padding=1), False),
        ((16, 7, 8), Conv(filters=16, kernel=3, padding=1), False),
        ((16, 32, 32), Conv(filters=32, kernel=3, padding=1, stride=2), False),
        ((16, 32, 32), Conv(filters=16, kernel=3, padding=2, dilation=2), False),
        ((16, 32, 32), Conv(filters=16, kernel=3, padding=1, groups=2), False),
        ((16, 32, 32), Conv(filters=16, kernel=3, padding=2), False),
        ((16, 32, 32), Conv(filters=16, kernel=5, padding=2), False),
    ],
)
def test_sums_of_filter_gradients_are_chosen_by_shapes(shape, conv, expected):
    (layer,) = build_layers([conv], shape)
    assert sums_by_toom_cook(layer) is expected
