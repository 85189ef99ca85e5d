from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.parallel.update.reduction import GradientReduction
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.tile_computer import Computation, TileComputer

Array = NDArray[Any]
TRAIN = SplitName.TRAIN
KINDS = [("fast", "float32"), ("loops", "float32"), ("loops", "float64")]


def reduction_of(computation: Computation) -> GradientReduction:
    network, kernels, arrays = computation.network, computation.kernels, computation.arrays
    return GradientReduction(network, kernels, arrays, computation.tiling, computation.dtype)


def fill_with_noise(computation: Computation) -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    for name, array in computation.arrays.items():
        if name == "tile_sums" or name.startswith("dense"):
            array[...] = rng.standard_normal(array.shape)


@pytest.mark.parametrize(("kernels", "dtype"), KINDS)
@pytest.mark.parametrize("num_examples", [20, 18, 16, 1])
def test_slots_are_added_in_the_order_of_the_tiles(
    make_computation: Callable[..., Computation], kernels: str, dtype: str, num_examples: int
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype)
    fill_with_noise(computation)
    size = computation.network.tile_sums.size
    expected = np.zeros(size, dtype)
    for slot in computation.arrays["tile_sums"][: -(-num_examples // 3)]:
        expected += slot
    assert reduction_of(computation).reduce(num_examples)[:size].tobytes() == expected.tobytes()


def tree_sum(parts: list[Array]) -> Array:
    """Return the sum of a binary tree: the largest power of two below the number of parts goes left."""
    if len(parts) == 1:
        return parts[0]
    left = 2 ** ((len(parts) - 1).bit_length() - 1)
    return tree_sum(parts[:left]) + tree_sum(parts[left:])


@pytest.mark.parametrize(("kernels", "dtype"), KINDS)
@pytest.mark.parametrize("num_examples", [3, 4, 6, 7, 12, 16, 19, 24, 30, 57, 60])
def test_sums_of_blocks_are_added_in_a_tree(
    make_computation: Callable[..., Computation], kernels: str, dtype: str, num_examples: int
) -> None:
    whole = make_computation(kernels=kernels, dtype=dtype, batch_size=60, block=3)
    fill_with_noise(whole)
    of_blocks = []
    for first in range(0, num_examples, 3):
        block = make_computation(kernels=kernels, dtype=dtype, batch_size=60)
        for name, array in block.arrays.items():
            if name == "tile_sums":
                array[0] = whole.arrays[name][first // 3]
            elif name.startswith("dense"):
                array[:3] = whole.arrays[name][first : first + 3]
        of_blocks.append(reduction_of(block).reduce(min(3, num_examples - first)).copy())
    assert reduction_of(whole).reduce(num_examples).tobytes() == tree_sum(of_blocks).tobytes()


@pytest.mark.parametrize(("kernels", "dtype"), KINDS)
@pytest.mark.parametrize("num_examples", [20, 7, 1])
def test_factors_become_the_sum_of_their_outer_products(
    make_computation: Callable[..., Computation], kernels: str, dtype: str, num_examples: int
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype)
    fill_with_noise(computation)
    views = computation.network.parameters.views(reduction_of(computation).reduce(num_examples))
    for name in ("dense1", "dense2"):
        inputs, deltas = (
            computation.arrays[f"{name}.{kind}"][:num_examples].astype(np.float64) for kind in ("inputs", "deltas")
        )
        assert np.allclose(views[f"{name}.weight"], np.einsum("ne,nd->ed", deltas, inputs), rtol=0, atol=1e-4)
        assert np.allclose(views[f"{name}.bias"], deltas.sum(axis=0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kernels", "dtype"), KINDS)
def test_what_lies_behind_the_batch_does_not_count(
    make_computation: Callable[..., Computation], kernels: str, dtype: str
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype)
    fill_with_noise(computation)
    expected = reduction_of(computation).reduce(10).tobytes()
    for name, array in computation.arrays.items():
        if name == "tile_sums":
            array[4:] = np.nan
        elif name.startswith("dense"):
            array[10:] = np.nan
    assert reduction_of(computation).reduce(10).tobytes() == expected


def test_sum_starts_anew_at_every_call(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation()
    fill_with_noise(computation)
    reduction = reduction_of(computation)
    first = reduction.reduce(20).tobytes()
    reduction.reduce(3)
    assert reduction.reduce(20).tobytes() == first


def test_sum_of_all_tiles_is_the_derivative_of_the_loss(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation(kernels="loops", dtype="float64")
    arrays = computation.arrays
    computer = TileComputer(computation)
    start = arrays["parameters"].copy()
    direction = np.random.Generator(np.random.Philox(key=3)).standard_normal(start.shape)
    direction /= np.linalg.norm(direction)

    def loss_at(distance: float) -> float:
        arrays["parameters"][:] = start + distance * direction
        computer.carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20))
        return float(arrays["losses"][:20].sum())

    h = 1e-6
    difference = (loss_at(h) - loss_at(-h)) / (2 * h)
    loss_at(0)
    slope = float(reduction_of(computation).reduce(20) @ direction)
    assert slope == pytest.approx(difference, rel=1e-6)


def test_gradient_does_not_depend_on_the_tile_but_for_rounding(
    make_computation: Callable[..., Computation],
) -> None:
    gradients = []
    for tile in (1, 3, 7, 20):
        computation = make_computation(kernels="loops", dtype="float64", tile=tile)
        TileComputer(computation).carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20))
        gradients.append(reduction_of(computation).reduce(20))
    for gradient in gradients[1:]:
        assert np.allclose(gradient, gradients[0], rtol=0, atol=1e-12)
