"""Shapes: C, H, W input channels, rows, columns; F filters."""

from __future__ import annotations

import pytest

from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import AvgPool, Conv, Dropout, MaxPool, Relu
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm
from partrain.kernels import convolution, tap_convolution, toom_cook_convolution, toom_cook_convolution_1d
from partrain.network.layer_building import build_layers
from partrain.network.layers import Conv2d
from partrain.network.stages.convolution_passes import forward_pass, sums_by_toom_cook
from partrain.network.stages.plain_convolution import PlainConvStage
from tests.loaded_kernels import EVERYTHING

DIRECT = convolution.conv2d_forward
ONE_DIMENSION = toom_cook_convolution_1d.conv2d_forward_1d
OF_3X3, OF_5X5 = toom_cook_convolution.conv2d_forward_3x3, toom_cook_convolution.conv2d_forward_5x5

# This decides the bits: another choice is another version of the bits.
CHOICES = {
    "article, first layer": ((1, 28, 28), Conv(filters=8, kernel=5), DIRECT),
    "article, second layer": ((8, 24, 24), Conv(filters=8, kernel=5), OF_5X5),
    "LeNet-5, second layer": ((6, 14, 14), Conv(filters=16, kernel=5), ONE_DIMENSION),
    "filters of 5x5, few channels": ((3, 32, 32), Conv(filters=32, kernel=5), ONE_DIMENSION),
    "filters of 5x5, many channels": ((32, 16, 16), Conv(filters=32, kernel=5, padding=2), OF_5X5),
    "flat filters": ((16, 30, 30), Conv(filters=16, kernel=[2, 5]), ONE_DIMENSION),
    "CIFAR-10, first layer": ((3, 32, 32), Conv(filters=32, kernel=3, padding=1), DIRECT),
    "CIFAR-10, second layer": ((32, 32, 32), Conv(filters=32, kernel=3, padding=1), OF_3X3),
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


def test_network_with_everything_has_a_convolution_for_each_choice():
    passes = [forward_pass(layer) for layer in EVERYTHING.layers if isinstance(layer, Conv2d)]
    assert {kernel for *_, kernel in CHOICES.values()} <= {kernel for made in passes for kernel in made.KERNELS}


@pytest.mark.parametrize(
    ("shape", "conv", "expected"),
    [
        ((16, 32, 32), Conv(filters=16, kernel=3, padding=1), True),
        ((64, 8, 8), Conv(filters=64, kernel=3, padding=1, bias=False), True),
        ((16, 10, 10), Conv(filters=16, kernel=3), True),
        ((16, 32, 32), Conv(filters=8, kernel=3, padding=1), False),
        ((3, 32, 32), Conv(filters=16, kernel=3, padding=1), False),
        ((128, 7, 7), Conv(filters=128, kernel=3, padding=1), True),
        ((16, 6, 8), Conv(filters=16, kernel=3, padding=1), False),
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


PADDED = Conv(filters=16, kernel=3, padding=1, bias=False)
FOLLOWERS = {
    "a normalisation": ([BatchNorm(), MaxPool(window=2)], 7, True),
    "a mean": ([AvgPool(window=7)], 7, True),
    "a ReLU in a small image": ([Relu()], 8, False),
    "a ReLU": ([Relu()], 10, True),
    "a pooling in a small image": ([MaxPool(window=2), BatchNorm()], 12, False),
    "a pooling": ([MaxPool(window=2), BatchNorm()], 14, True),
    "a dropout, then a ReLU": ([Dropout(rate=0.5), Relu()], 12, False),
    "a layer that spreads gradients, before the ReLU": ([GroupNorm(groups=4), Relu()], 8, True),
}


@pytest.mark.parametrize(("following", "size", "expected"), FOLLOWERS.values(), ids=FOLLOWERS)
def test_sums_of_few_gradients_that_are_not_zero_are_direct(following, size, expected):
    """Toom-Cook's rounding errors have the size of a tile's sum: they are too large for a sum of a few terms."""
    conv, *_ = build_layers([PADDED, *following], (16, size, size))
    assert sums_by_toom_cook(conv) is expected


def test_what_follows_a_residual_layer_follows_the_last_layer_of_its_body():
    residual, _ = build_layers([Residual(body=[PADDED]), Relu()], (16, 8, 8))
    assert not sums_by_toom_cook(residual.body[-1])


@pytest.mark.parametrize(("filters", "expected"), [(16, True), (8, False)])
def test_gradients_at_the_input_are_direct_where_few_terms_of_a_sum_are_not_zero(filters, expected):
    conv, _ = build_layers([Conv(filters=filters, kernel=3, padding=1, bias=False), MaxPool(window=2)], (16, 32, 32))
    assert (tap_convolution.flip_filters in PlainConvStage.kernels_of(conv)) is expected
