"""Updates of parameters in several groups: a small network whose tile sums include running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partrain.config.schema.optimizer import Optimizer
from partrain.network.network import Network
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups
from partrain.network.parameters import Parameter, ParameterLayout
from partrain.parallel.array_plan import exchange_specs, planned_specs
from partrain.parallel.update import piece_plan
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.workers.commands import Operation, StepsCommand
from partrain.parallel.workers.planned_steps import PlannedStep, StepMember, StepRing
from partrain.parallel.workers.tile_computer import Computation
from tests.optimizers import optimizer_of

N, TILE = 20, 3
KINDS = [("fast", "float32"), ("loops", "float32"), ("loops", "float64")]
EVERY_KIND = pytest.mark.parametrize(("kernels", "dtype"), KINDS)
Array = NDArray[Any]


class WithStatistics(Network):
    """A network of the tests, whose first convolution has running statistics between its weight and its bias."""

    def __init__(self, network: Network) -> None:
        vars(self).update(vars(network))
        weight, bias, *others = network.tile_sums
        averages = (
            Parameter("conv1.running_mean", (40,), 0.0, role="average", momentum=0.1),
            Parameter("conv1.running_var", (3,), 0.0, role="average", momentum=0.25),
        )
        self.tile_sums = ParameterLayout((weight, *averages, bias, *others))
        of_dense_layers = (p for layer in network.dense_layers for p in layer.parameters)
        self.parameters = ParameterLayout((*self.tile_sums, *of_dense_layers))


class Trained:
    """A computation whose tiles left noise, and what updates its parameters."""

    def __init__(self, computation: Computation, optimizer: Optimizer, num_threads: int | None = None) -> None:
        network, kernels, dtype = WithStatistics(computation.network), computation.kernels, computation.dtype
        groups = ParameterGroups(network.parameters, optimizer)
        specs = exchange_specs(network, N, computation.tiling, dtype, N)
        specs |= planned_specs(network, groups, kernels, N)
        self.arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
        rng = np.random.default_rng(5)
        for name, array in self.arrays.items():
            if name == "parameters" or name == "tile_sums" or name.startswith("dense"):
                array[...] = rng.standard_normal(array.shape)
        self.network, self.groups = network, groups
        self.optimizer: ParameterOptimizer = optimizer_of(
            self.arrays["parameters"], optimizer, parameters=network.parameters, tile=TILE
        )
        self.update = ParameterUpdate(
            network, kernels, self.arrays, computation.tiling, dtype, self.optimizer, num_threads
        )
        self.computation = replace(computation, network=network, arrays=self.arrays, groups=groups)  # type: ignore[arg-type]

    def parameter(self, name: str, vector: Array | None = None) -> Array:
        return self.network.parameters.views(self.optimizer.parameters if vector is None else vector)[name]

    @property
    def state(self) -> tuple[bytes, ...]:
        first_moment, second_moment = self.update.moments.newest()
        return self.optimizer.parameters.tobytes(), first_moment.tobytes(), second_moment.tobytes()


Make = Callable[..., Trained]


@pytest.fixture
def make(make_computation: Callable[..., Computation]) -> Iterator[Make]:
    made: list[Trained] = []

    def make(num_threads: int | None = None, optimizer: Optimizer | None = None, **options: object) -> Trained:
        optimizer = optimizer or Optimizer(lr=0.01, weight_decay=0.1)
        made.append(Trained(make_computation(tile=TILE, batch_size=N, **options), optimizer, num_threads))
        return made[-1]

    yield make
    for trained in made:
        trained.update.close()


@EVERY_KIND
def test_running_statistics_move_towards_the_mean_of_the_tiles(make: Make, kernels: str, dtype: str) -> None:
    trained = make(kernels=kernels, dtype=dtype)
    for num_examples, num_tiles in ((20, 7), (7, 3), (1, 1)):
        before = trained.optimizer.parameters.astype(np.float64)
        sums = np.zeros(trained.network.parameters.size)
        sums[: trained.network.tile_sums.size] = trained.arrays["tile_sums"][:num_tiles].astype(np.float64).sum(0)
        assert trained.update.apply(num_examples, 1) is None
        for name, momentum in (("conv1.running_mean", 0.1), ("conv1.running_var", 0.25)):
            old, mean = trained.parameter(name, before), trained.parameter(name, sums) / num_tiles
            np.testing.assert_allclose(trained.parameter(name), old + momentum * (mean - old), rtol=1e-5, atol=1e-6)


@EVERY_KIND
def test_running_statistics_have_no_moments_and_count_in_no_norm(make: Make, kernels: str, dtype: str) -> None:
    trained = make(kernels=kernels, dtype=dtype)
    gradient = trained.update.gradient_sum(N).copy()
    for name in ("conv1.running_mean", "conv1.running_var"):
        trained.parameter(name, gradient)[:] = 0
    expected = float((gradient.astype(np.float64) ** 2).sum())
    assert trained.update.squared_norm_of(trained.update.gradient_sum(N)) == pytest.approx(expected, rel=1e-12)
    assert trained.update.apply(N, 1) is None
    for moment in trained.update.moments.newest():
        assert not trained.parameter("conv1.running_mean", moment).any()
        assert trained.parameter("conv1.bias", moment).all()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a small network into many pieces, with remainders."""
    monkeypatch.setattr(piece_plan, "PIECE", 23)


EVERY_OPTIMIZER = pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer(lr=0.01, weight_decay=0.1),
        Optimizer(lr=0.01, weight_decay=0.1, weight_decay_exclude=["bias"]),
        Optimizer(name="sgd", lr=0.01, weight_decay=0.1, weight_decay_exclude=["bias"]),
        Optimizer(name="sgd", lr=0.01, momentum=0.9, weight_decay=0.1),
        Optimizer(name="sgd", lr=0.01, momentum=0.9, nesterov=True),
    ],
)


@EVERY_OPTIMIZER
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.usefixtures("small_pieces")
def test_groups_have_the_same_bits_in_pieces_and_from_the_sum(
    make: Make, num_threads: int, optimizer: Optimizer
) -> None:
    in_pieces, plain = make(num_threads, optimizer), make(1, optimizer)
    for step, num_examples in enumerate((20, 20, 7, 1, 20), start=1):
        assert in_pieces.update.apply(num_examples, step) is None
        assert plain.update.apply_sum(plain.update.gradient_sum(num_examples), num_examples, step) is None
        assert in_pieces.state == plain.state


class FinishedTiles:
    """Stands for a tile computer whose results are in the arrays."""

    def carry_out(self, command: object, is_wanted: object, results: object, parameters: object) -> None:
        pass


@EVERY_OPTIMIZER
@pytest.mark.usefixtures("small_pieces")
def test_planned_steps_of_groups_have_the_bits_of_the_coordinators(make: Make, optimizer: Optimizer) -> None:
    alone, together = make(1, optimizer), make(1, optimizer)
    words = np.zeros(64, np.int64)
    ring = StepRing(together.arrays, words)
    ring.open(1, 1)
    together.update.moments.lend(0)
    steps = []
    for step, num_examples in enumerate((20, 7, 20), start=1):
        rows = together.optimizer.coefficients(num_examples, step)
        steps.append(PlannedStep(step, Operation.GRADIENTS, 0, np.arange(num_examples), rows))
        assert alone.update.apply(num_examples, step) is None
    ring.plan(steps)
    ring.close()
    member = StepMember(together.computation, FinishedTiles(), words)  # type: ignore[arg-type]
    member.carry_out(StepsCommand(1, N, 0, 1), lambda: True)
    assert ring.end() == 3
    together.update.moments.advance(3)
    together.update.moments.collect()
    assert together.state == alone.state


def test_statistics_that_are_not_finite_are_named_and_nothing_is_written(make: Make) -> None:
    trained = make(2)
    place = trained.network.parameters.start("conv1.running_var")
    trained.arrays["tile_sums"][2, place] = np.inf
    before = trained.state
    assert trained.update.apply(N, 1) == NotFinite("conv1.running_var", is_gradient=True)
    assert trained.state == before
