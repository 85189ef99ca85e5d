"""A finite gradient whose square is infinite: the second moment becomes infinite, and the parameter would stay put."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.workers.tile_computer import Computation
from tests.optimizers import optimizer_of

MakeUpdate = Callable[..., tuple[Computation, ParameterUpdate]]


@pytest.fixture
def make_update(make_computation: Callable[..., Computation]) -> Iterator[MakeUpdate]:
    """Return a function that makes a computation without any gradient yet, and its update."""
    made: list[ParameterUpdate] = []

    def make(kernels: str, dtype: str) -> tuple[Computation, ParameterUpdate]:
        computation = make_computation(kernels=kernels, dtype=dtype)
        arrays = computation.arrays
        for name, array in arrays.items():
            if name == "tile_sums" or name.startswith("dense"):
                array[...] = 0
        adam = optimizer_of(arrays["parameters"], Optimizer(lr=0.01), parameters=computation.network.parameters)
        made.append(ParameterUpdate(computation.network, kernels, arrays, computation.tiling, dtype, adam))
        return computation, made[-1]

    yield make
    for made_update in made:
        made_update.close()


def set_large_gradient(computation: Computation, parameter: str, index: int) -> None:
    """Let the gradient of a number of a parameter be finite, and its square infinite."""
    large = np.sqrt(np.finfo(computation.dtype).max) * 1e4
    layer, kind = parameter.split(".")
    if layer.startswith("conv"):
        computation.arrays["tile_sums"][0, computation.network.parameters.start(parameter) + index] = large
    elif kind == "bias":
        computation.arrays[f"{layer}.deltas"][0, index] = large
    else:
        computation.arrays[f"{layer}.inputs"][0, index] = np.sqrt(large) * 100
        computation.arrays[f"{layer}.deltas"][0, 0] = np.sqrt(large)


@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float32"), ("loops", "float64")])
@pytest.mark.parametrize(
    ("parameter", "index"),
    [("conv1.weight", 0), ("conv2.bias", 1), ("dense1.weight", 3), ("dense2.weight", 11), ("dense2.bias", 9)],
)
def test_second_moment_that_becomes_infinite_is_named(
    make_update: MakeUpdate, kernels: str, dtype: str, parameter: str, index: int
) -> None:
    computation, made_update = make_update(kernels, dtype)
    assert made_update.apply(20, 1) is None
    set_large_gradient(computation, parameter, index)
    assert made_update.apply(20, 2) == NotFinite(f"Adam's second moment of {parameter}", is_gradient=False)
    assert np.isfinite(computation.arrays["parameters"]).all()  # so a check of the parameters alone sees nothing


def test_largest_finite_moments_and_parameters_are_no_error(make_update: MakeUpdate) -> None:
    computation, made_update = make_update("fast", "float32")
    computation.arrays["parameters"][:] = np.finfo(np.float32).max
    computation.arrays["parameters"][::2] *= -1
    computation.arrays["tile_sums"][0] = 1e19  # the second moments are about 1e33
    assert made_update.apply(20, 1) is None
