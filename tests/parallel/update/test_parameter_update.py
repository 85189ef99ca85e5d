from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.kernels.compiler.loading import load
from partrain.network.network import Network
from partrain.network.optimizer import ParameterOptimizer
from partrain.parallel.update import parameter_update, piece_plan
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.update.piece_plan import useful_threads
from partrain.parallel.workers.tile_computer import Computation
from tests.optimizers import optimizer_of

KINDS = [("fast", "float32"), ("loops", "float32"), ("loops", "float64")]
EVERY_KIND = pytest.mark.parametrize(("kernels", "dtype"), KINDS)
Make = Callable[..., tuple[Computation, ParameterOptimizer, ParameterUpdate]]


@pytest.fixture
def make_update(make_computation: Callable[..., Computation]) -> Iterator[Make]:
    """Return a function that makes a computation with noise for results, Adam on it, and an update."""
    made: list[ParameterUpdate] = []

    def make(
        num_threads: int | None = None, *, weight_decay: float = 0.1, is_private: bool = False, **options: object
    ) -> object:
        computation = make_computation(**options)
        arrays = dict(computation.arrays)
        rng = np.random.default_rng(5)
        for name, array in computation.arrays.items():
            if name == "tile_sums" or name.startswith("dense"):
                array[...] = rng.standard_normal(array.shape) * (rng.random(array.shape) < 0.6)
        optimizer = Optimizer(lr=0.01, weight_decay=weight_decay)
        vector, parameters = computation.arrays["parameters"], computation.network.parameters
        adam = optimizer_of(vector, optimizer, parameters=parameters, tile=computation.tiling.tile_size)
        made.append(
            ParameterUpdate(
                computation.network,
                computation.kernels,
                arrays,
                computation.tiling,
                computation.dtype,
                adam,
                num_threads,
                is_private=is_private,
            )
        )
        return computation, adam, made[-1]

    yield make  # type: ignore[misc]
    for made_update in made:
        made_update.close()


def state_of(adam: ParameterOptimizer) -> tuple[bytes, ...]:
    return adam.parameters.tobytes(), adam.first_moment.tobytes(), adam.second_moment.tobytes()


def after_steps(
    made: tuple[Computation, ParameterOptimizer, ParameterUpdate], *numbers_of_examples: int
) -> tuple[bytes, ...]:
    _, adam, made_update = made
    for step, num_examples in enumerate(numbers_of_examples, start=1):
        assert made_update.apply(num_examples, step) is None
    return state_of(adam)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a small network into many pieces, with remainders."""
    monkeypatch.setattr(piece_plan, "PIECE", 23)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
@pytest.mark.usefixtures("small_pieces")
def test_update_in_pieces_by_any_number_of_threads_has_the_bits_of_the_plain_one(
    make_update: Make, num_threads: int
) -> None:
    in_pieces = after_steps(make_update(num_threads), 20, 20, 7, 1, 20)
    _, adam, plain = make_update(1)
    for step, num_examples in enumerate((20, 20, 7, 1, 20), start=1):
        assert plain.apply_sum(plain.gradient_sum(num_examples), num_examples, step) is None
    assert state_of(adam) == in_pieces


@pytest.mark.parametrize("block", [3, 6, 30])
@pytest.mark.usefixtures("small_pieces")
def test_update_in_pieces_adds_blocks_as_the_plain_one(make_update: Make, block: int) -> None:
    numbers = (60, 57, 31, 30, 7, 3, 1)
    in_pieces = after_steps(make_update(2, batch_size=60, block=block), *numbers)
    _, adam, plain = make_update(1, batch_size=60, block=block)
    for step, num_examples in enumerate(numbers, start=1):
        assert plain.apply_sum(plain.gradient_sum(num_examples), num_examples, step) is None
    assert state_of(adam) == in_pieces
    assert in_pieces != after_steps(make_update(2, batch_size=60, block=60), *numbers)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize(("kernels", "dtype"), KINDS)
@pytest.mark.usefixtures("small_pieces")
def test_sums_of_threads_have_the_bits_of_plain_ones(
    make_update: Make, kernels: str, dtype: str, num_threads: int
) -> None:
    options = {"kernels": kernels, "dtype": dtype, "batch_size": 60, "block": 6}
    (_, _, plain), (c, _, by_threads) = make_update(1, **options), make_update(num_threads, is_private=True, **options)
    load(NodeSums.kernels(kernels), dtype)
    for num_examples in (60, 31, 30, 7, 60, 1):
        assert by_threads.gradient_sum(num_examples).tobytes() == plain.gradient_sum(num_examples).tobytes()
    for name in ("tile_sums", "dense1.inputs", "dense1.deltas"):
        for value in (np.inf, np.nan):
            kept = c.arrays[name].copy()
            c.arrays[name][1, 2] = value
            summed = by_threads.gradient_sum(60)
            assert by_threads.first_not_finite(summed) is not None
            assert by_threads.apply_sum(summed, 60, 1) == NotFinite(by_threads.first_not_finite(summed) or "", True)
            c.arrays[name][:] = kept


def test_threads_of_sums_begin_with_the_first_one_and_end_at_close(make_update: Make) -> None:
    _, _, update = make_update(3, is_private=True)
    load(NodeSums.kernels("fast"), "float32")
    before = threading.active_count()
    update.gradient_sum(20)
    assert threading.active_count() == before + 2
    update.close()
    assert threading.active_count() == before


def test_long_updates_use_more_threads(make_computation: Callable[..., Computation]) -> None:
    network = make_computation().network
    assert useful_threads(network, 20, 8) == 1
    assert useful_threads(network, 10**7, 8) == 8
    assert useful_threads(network, 10**7, 3) == 3


@EVERY_KIND
def test_update_is_adam_on_the_sum_of_the_gradients(make_update: Make, kernels: str, dtype: str) -> None:
    computation, adam, made_update = make_update(kernels=kernels, dtype=dtype, weight_decay=0)
    views = computation.network.parameters.views
    start = adam.parameters.copy()
    assert made_update.apply(20, 1) is None
    arrays = {name: array.astype(np.float64) for name, array in computation.arrays.items()}
    expected = np.zeros(start.size)
    expected[: computation.network.tile_sums.size] = arrays["tile_sums"].sum(axis=0)
    for name in ("dense1", "dense2"):
        inputs, deltas = arrays[f"{name}.inputs"][:20], arrays[f"{name}.deltas"][:20]
        views(expected)[f"{name}.weight"][:] = np.einsum("ne,nd->ed", deltas, inputs)
        views(expected)[f"{name}.bias"][:] = deltas.sum(axis=0)
    assert np.allclose(adam.first_moment, 0.1 * expected / 20, rtol=1e-5, atol=1e-7)
    assert np.allclose(adam.second_moment, 0.001 * (expected / 20) ** 2, rtol=1e-5, atol=1e-9)
    assert np.allclose(adam.parameters - start, -0.01 * np.sign(expected) * (expected != 0), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("small_pieces")
def test_steps_have_the_same_bits_however_late_the_other_threads_come(
    make_update: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = after_steps(make_update(1), *[20] * 200)
    participate = parameter_update._UpdateThreads._participate

    def late(self: parameter_update._UpdateThreads, number: int) -> int:
        if number:
            time.sleep(0.0003 * (number % 3))
        return participate(self, number)

    monkeypatch.setattr(parameter_update._UpdateThreads, "_participate", late)
    assert after_steps(make_update(5), *[20] * 200) == expected


@EVERY_KIND
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("array", "place", "parameter"),
    [
        ("tile_sums", (3, 7), "conv1.weight"),
        ("dense1.deltas", (4, 2), "dense1.weight"),
        ("dense2.deltas", (4, 2), "dense2.weight"),
        ("dense2.inputs", (19, 3), "dense2.weight"),
    ],
)
def test_gradient_that_is_not_finite_is_named_and_nothing_is_written(
    make_update: Make, kernels: str, dtype: str, array: str, place: tuple[int, int], parameter: str, bad: float
) -> None:
    computation, adam, made_update = make_update(2, kernels=kernels, dtype=dtype)
    after_steps((computation, adam, made_update), 20)
    before = state_of(adam)
    computation.arrays["dense2.deltas"][19] = 1  # so that an input there counts
    computation.arrays[array][place] = bad
    assert made_update.apply(20, 2) == NotFinite(parameter, is_gradient=True)
    assert made_update.first_not_finite(made_update.gradient_sum(20)) == parameter
    assert state_of(adam) == before


def test_sum_of_finite_slots_that_is_not_finite_is_named(make_update: Make) -> None:
    computation, _, made_update = make_update(2)
    computation.arrays["tile_sums"][:2, 5] = 3e38
    assert made_update.apply(20, 1) == NotFinite("conv1.weight", is_gradient=True)


def test_what_lies_behind_the_batch_does_not_count(make_update: Make) -> None:
    expected = after_steps(make_update(2), 10)
    made = make_update(2)
    for name, array in made[0].arrays.items():
        if name == "tile_sums":
            array[4:] = np.nan
        elif name.startswith("dense"):
            array[10:] = np.nan
    assert after_steps(made, 10) == expected


def test_finite_gradient_that_the_bound_cannot_prove_is_applied_all_the_same(make_update: Make) -> None:
    states = []
    for in_pieces in (True, False):
        computation, adam, made_update = make_update(2)
        computation.arrays["dense1.inputs"][3] = 1e30
        computation.arrays["dense1.deltas"][3] = 0
        computation.arrays["dense1.deltas"][5] = 1e12  # never meets the input above
        if in_pieces:
            assert made_update.apply(20, 1) is None
        else:
            assert made_update.apply_sum(made_update.gradient_sum(20), 20, 1) is None
        assert np.isfinite(adam.parameters).all()
        states.append(state_of(adam))
    assert states[0] == states[1]


@EVERY_KIND
def test_parameter_that_an_update_makes_infinite_is_named(make_update: Make, kernels: str, dtype: str) -> None:
    computation, adam, made_update = make_update(2, kernels=kernels, dtype=dtype)
    largest = np.finfo(dtype).max
    computation.network.parameters.views(adam.parameters)["dense2.bias"][1] = largest
    adam._optimizer = Optimizer(lr=1e30, weight_decay=0)
    computation.network.parameters.views(adam.first_moment)["dense2.bias"][1] = -largest / 2
    assert made_update.apply(20, 1) == NotFinite("dense2.bias", is_gradient=False)


def test_threads_begin_with_the_first_update_and_end_at_close(make_update: Make) -> None:
    def num_threads() -> int:
        return sum(thread.name.startswith("partrain update") for thread in threading.enumerate())

    _, _, made_update = make_update(3)
    assert num_threads() == 0
    made_update.apply(20, 1)
    assert num_threads() == 2
    made_update.close()
    assert num_threads() == 0
    made_update.close()


def test_number_of_threads_follows_from_the_work(make_computation: Callable[..., Computation]) -> None:
    small: Network = make_computation().network
    assert useful_threads(small, 32, 64) == 1

    class Large:
        parameters = type("Layout", (), {"size": 10**6})

    assert useful_threads(Large, 32, 2) == 2  # type: ignore[arg-type]
    assert useful_threads(Large, 32, 64) == piece_plan.MAX_THREADS  # type: ignore[arg-type]
