"""Kernels for vectors of 8 numbers, on a processor whose vectors have 16: for layers with few channels."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from partrain.config.schema.layers import Conv, Dense, Flatten, MaxPool, Relu
from partrain.config.schema.normalisation_layers import GroupNorm
from partrain.kernels import call_list, convolution, toom_cook_convolution
from partrain.kernels.compiler.cache import _entry_names
from partrain.kernels.compiler.compile_order import group_kernels
from partrain.kernels.compiler.flags import name_of
from partrain.kernels.compiler.loading import load
from partrain.kernels.lanes import NARROW, with_lanes
from partrain.kernels.simd.vectors import EIGHT_LANES, LANES
from partrain.network.execution import Factors
from partrain.network.fast_execution import FastExecution
from partrain.network.layer_building import build_layers
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.stages import vector_lanes
from partrain.network.stages.vector_lanes import lanes_of
from tests.program import ROOT
from tests.vector_widths import with_width

needs_wide_vectors = pytest.mark.skipif(LANES == NARROW, reason="the vectors of this processor are not wider than 8")
NARROW_CONVOLUTION = importlib.import_module(f"{EIGHT_LANES}.convolution")


def test_modules_of_narrow_kernels_import_nothing_of_the_others_that_depends_on_the_lanes():
    for kernel in call_list._CALLED:
        importlib.import_module(kernel.__module__.replace("partrain.kernels", EIGHT_LANES))
    modules = {name: module for name, module in sys.modules.items() if name.startswith(f"{EIGHT_LANES}.")}
    assert f"{EIGHT_LANES}.simd.vectors" in modules
    for name, module in modules.items():
        assert vars(module).get("LANES", 8) == 8
        origins = {origin for value in vars(module).values() if isinstance(origin := _module_of(value), str)}
        for origin in origins - modules.keys():
            if origin.startswith("partrain.kernels."):
                assert not {"LANES", "registers"} & vars(sys.modules[origin]).keys(), f"{name} imports {origin}"


def _module_of(value):
    return vars(value).get("__module__") if hasattr(value, "__dict__") else None


def test_both_versions_of_a_kernel_are_compiled_by_themselves_and_kept_apart():
    wide, narrow = convolution.conv2d_forward, NARROW_CONVOLUTION.conv2d_forward
    assert group_kernels([wide, narrow]) == [[wide], [narrow]]
    assert not {*_entry_names(wide, "float32")} & {*_entry_names(narrow, "float32")}
    assert getattr(importlib.import_module(narrow.py_func.__module__), narrow.py_func.__name__) is narrow
    assert name_of(wide) == "convolution.conv2d_forward"
    assert name_of(narrow) == "eight_lanes.convolution.conv2d_forward"


@needs_wide_vectors
def test_version_is_found_from_either_one():
    wide, narrow = convolution.conv2d_forward, NARROW_CONVOLUTION.conv2d_forward
    for kernel, (lanes, expected) in product((wide, narrow), ((LANES, wide), (NARROW, narrow))):
        assert with_lanes(kernel, lanes) is expected
    shape = (16, 3, 3, 3)
    assert with_lanes(toom_cook_convolution.transformed_shape, NARROW)(shape) == (36, 2, 3, 8)


@pytest.mark.parametrize(
    ("channels", "description", "is_narrow"),
    [
        (1, Conv(filters=8, kernel=5), True),
        (8, Conv(filters=8, kernel=5), True),
        (3, Conv(filters=9, kernel=3), False),
        (16, Conv(filters=8, kernel=3), False),
        (8, Conv(filters=8, kernel=3, groups=8), True),
        (16, Conv(filters=16, kernel=3, groups=16), False),
        (32, Conv(filters=32, kernel=3, groups=4), True),
        (32, Conv(filters=32, kernel=3, groups=2), False),
    ],
)
def test_lanes_are_chosen_from_channels_and_filters_of_a_group(channels, description, is_narrow):
    (conv,) = build_layers([description], (channels, 12, 12))
    assert lanes_of(conv) == (NARROW if is_narrow else LANES)


# By the forward pass, or the stage, of the convolutions.
NETWORKS = {
    "direct, and in two dimensions": [Conv(filters=8, kernel=5), Relu(), Conv(filters=8, kernel=5), Relu()],
    "in one dimension": [Conv(filters=6, kernel=3), Conv(filters=7, kernel=[3, 5])],
    "3x3": [Conv(filters=8, kernel=3), Relu(), Conv(filters=8, kernel=3, padding=1), Relu()],
    "one channel, pooled": [Conv(filters=6, kernel=5, padding=2), Relu(), MaxPool(window=2)],
    "pooled apart": [Conv(filters=5, kernel=3), Relu(), MaxPool(window=3, stride=2)],
    "before a normalisation": [Conv(filters=8, kernel=3, bias=False), GroupNorm(groups=4), Conv(filters=3, kernel=1)],
    "groups": [Conv(filters=8, kernel=3), Conv(filters=8, kernel=3, groups=2), Conv(filters=8, kernel=3, groups=8)],
    "narrow, then wide": [Conv(filters=8, kernel=3), Relu(), MaxPool(window=2), Conv(filters=20, kernel=3), Relu()],
}


def trained_on(network):
    """Return logits and gradients of a few examples; the kernels are loaded."""
    rng = np.random.default_rng(0)
    parameters = (rng.standard_normal(network.parameters.size) / 8).astype(np.float32)
    images = rng.integers(0, 256, (7, 1, 28, 28)).astype(np.uint8)
    load(FastExecution.kernels(network.layers), "float32")
    execution = FastExecution(network, parameters, Normalisation((33.0,), (79.0,)), 2)
    num = min(len(images), execution.capacity)
    logits = execution.forward(images, np.arange(num)).copy()
    slots = np.zeros((-(-num // 2), network.tile_sums.size), np.float32)
    factors = {
        layer.name: Factors(np.zeros((num, *layer.input_shape), np.float32), np.zeros((num, 10), np.float32))
        for layer in network.dense_layers
    }
    execution.backward(rng.standard_normal((num, 10)).astype(np.float32), slots, factors)
    return logits, slots, *(array for rows in factors.values() for array in (rows.inputs_ND, rows.deltas_NE))


@needs_wide_vectors
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_narrow_kernels_have_the_bits_of_the_others(layers, monkeypatch):
    network = Network((*layers, Flatten(), Dense(units=10)), (1, 28, 28), 10)
    assert any(EIGHT_LANES in kernel.__module__ for kernel in FastExecution.kernels(network.layers))
    narrow = trained_on(network)
    monkeypatch.setattr(vector_lanes, "NARROW", LANES)
    assert not any(EIGHT_LANES in kernel.__module__ for kernel in FastExecution.kernels(network.layers))
    for actual, expected in zip(narrow, trained_on(network), strict=True):
        assert np.isfinite(expected).all()
        assert np.array_equal(actual, expected)


# Prints the kernels of a network with a narrow convolution, a wide one, and a dense layer.
PRINT_KERNELS = """
import json
from partrain.config.schema.layers import Conv, Dense, Flatten, Relu
from partrain.kernels.compiler.flags import name_of
from partrain.network.fast_execution import FastExecution
from partrain.network.network import Network

layers = Conv(filters=8, kernel=5), Relu(), Conv(filters=32, kernel=5), Relu(), Flatten(), Dense(units=10)
print(json.dumps([name_of(k) for k in FastExecution.kernels(Network(layers, (1, 28, 28), 10).layers)]))
"""


def kernels_with(width):
    command = [sys.executable, "-c", PRINT_KERNELS]
    ended = subprocess.run(command, env=with_width(width), cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=120)
    return json.loads(ended.stdout)


def test_network_loads_each_version_that_it_calls_once():
    names = kernels_with(16)
    assert len(set(names)) == len(names)
    forward = {name for name in names if "conv2d_forward" in name}
    assert forward == {"eight_lanes.convolution.conv2d_forward", "toom_cook_convolution.conv2d_forward_5x5"}
    both = {"convolution_backward.conv2d_backward_winners", "max_pool.max_pool_forward"}
    assert {*both, *(f"eight_lanes.{name}" for name in both), "dense.dense_forward"} <= {*names}
    assert "eight_lanes.dense.dense_forward" not in names


@pytest.mark.parametrize("width", [4, 8])
def test_processor_without_wider_vectors_has_no_narrow_kernels(width):
    assert not [name for name in kernels_with(width) if name.startswith("eight_lanes")]
