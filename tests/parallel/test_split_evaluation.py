from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.parallel.split_evaluation import Evaluation, evaluate_split
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.pool import WorkerPool
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling


class RecordingGroup:
    """Computes nothing, but predicts class 1 with loss 2 wherever it is asked to."""

    num_tiles_computed: dict[str, int]
    pids: list[int]

    def __init__(self, arrays: dict[str, np.ndarray], forgets: int | None = None) -> None:
        self.arrays, self.forgets = arrays, forgets
        self.commands: list[Command] = []

    def run(self, commands: Sequence[Command]) -> None:
        self.commands += commands
        for command in commands:
            self.arrays["losses"][command.first : command.last] = 2
            self.arrays["predictions"][command.first : command.last] = 1
            self.arrays["confidences"][command.first : command.last] = 0.5
        if self.forgets is not None:
            self.arrays["predictions"][self.forgets] = -1

    def close(self) -> None:
        pass


def arrays_for(num_examples: int) -> dict[str, np.ndarray]:
    return {
        "losses": np.zeros(num_examples),
        "predictions": np.full(num_examples, 1),  # left over from before
        "confidences": np.zeros(num_examples),
        "train.labels": np.arange(num_examples) % 10,
    }


def bits_of(evaluation: Evaluation) -> list[bytes]:
    return [array.tobytes() for array in vars(evaluation).values() if array is not None]


@given(st.integers(1, 3000), st.integers(1, 40))
def test_every_example_of_the_split_is_asked_for_once(size: int, tile: int) -> None:
    group = RecordingGroup(arrays_for(size))
    result = evaluate_split(group, group.arrays, SplitName.TRAIN, Tiling(tile))
    positions = [k for command in group.commands for k in range(command.first, command.last)]
    assert positions == list(range(size))
    for command in group.commands:
        assert (command.operation, command.split) == (Operation.EVALUATION, SplitName.TRAIN)
        assert command.first % tile == 0
    assert result.num_examples == size
    assert result.loss == 2
    assert result.accuracy == np.mean(np.arange(size) % 10 == 1)


def test_who_follows_an_evaluation_hears_of_each_round_and_can_stop_it() -> None:
    group, heard = RecordingGroup(arrays_for(1000)), []

    def follow(num_done: int) -> None:
        assert num_done == group.commands[-1].last
        heard.append(num_done)
        if num_done == 768:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate_split(group, group.arrays, SplitName.TRAIN, Tiling(3), follow, 2)
    assert heard == [384, 768]


def test_confidence_is_the_probability_of_the_predicted_class(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation(kernels="loops", dtype="float64", tile=60)
    result = evaluate_split(InProcessGroup(computation), computation.arrays, SplitName.TRAIN, Tiling(60))
    right = result.predictions_N == result.labels_N
    assert 0 < right.sum() < 60
    np.testing.assert_allclose(result.confidences_N[right], np.exp(-result.losses_N[right]), rtol=1e-12)
    assert (result.confidences_N[~right] > np.exp(-result.losses_N[~right])).all()
    assert (result.confidences_N < 1).all()


def test_example_that_nobody_evaluated_is_found() -> None:
    group = RecordingGroup(arrays_for(100), forgets=57)
    with pytest.raises(FailedRun, match="1 train examples were not evaluated"):
        evaluate_split(group, group.arrays, SplitName.TRAIN, Tiling(4))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_workers_evaluate_to_the_bits_of_the_coordinator(
    make_computation: Callable[..., Computation], num_workers: int
) -> None:
    computation = make_computation(num_test=1000)
    split = SplitName.TEST
    expected = evaluate_split(InProcessGroup(computation), computation.arrays, split, computation.tiling)
    computation.arrays["losses"][:] = computation.arrays["confidences"][:] = -1
    pool = WorkerPool(num_workers, computation, max_restarts=0, log=pytest.fail)
    try:
        result = evaluate_split(pool, computation.arrays, split, computation.tiling)
    finally:
        pool.close()
    assert bits_of(result) == bits_of(expected)


def test_evaluation_does_not_depend_on_the_tile_but_for_rounding(
    make_computation: Callable[..., Computation],
) -> None:
    split = SplitName.TRAIN
    evaluations = []
    for kernels, dtype, tile in (("loops", "float64", 1), ("fast", "float32", 3), ("fast", "float32", 16)):
        computation = make_computation(kernels=kernels, dtype=dtype, tile=tile)
        evaluations.append(evaluate_split(InProcessGroup(computation), computation.arrays, split, Tiling(tile)))
    for result in evaluations[1:]:
        assert result.loss == pytest.approx(evaluations[0].loss, rel=1e-5)
        assert result.accuracy == evaluations[0].accuracy


def test_loss_is_the_mean_cross_entropy_of_the_softmax(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation(kernels="loops", dtype="float64", tile=60)
    computation.arrays["parameters"][:] = 0
    bias = np.linspace(-1, 1, 10)
    computation.network.parameters.views(computation.arrays["parameters"])["dense2.bias"][:] = bias
    result = evaluate_split(InProcessGroup(computation), computation.arrays, SplitName.TRAIN, Tiling(60))
    labels = computation.arrays["train.labels"]
    expected = np.log(np.exp(bias).sum()) - bias[labels].mean()
    assert result.loss == pytest.approx(expected, rel=1e-12)
    assert result.accuracy == (labels == 9).mean()
