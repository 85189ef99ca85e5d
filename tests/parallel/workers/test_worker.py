from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from partrain.config.schema.augmentation import Augment, Cutmix, Elastic, Mixup
from partrain.data.split_name import SplitName
from partrain.kernels.ipc.mailbox import FIELDS
from partrain.parallel.workers import tile_computer
from partrain.parallel.workers.commands import Command, Operation, StepsCommand, decode
from partrain.parallel.workers.step_examples import NO_CHANGES, ExampleChanges
from partrain.parallel.workers.tile_computer import Computation, TileComputer

TRAIN, TEST = SplitName.TRAIN, SplitName.TEST


def spoil_results(computation: Computation) -> None:
    """Overwrite all that a command writes, so that nothing old counts."""
    for name, array in computation.arrays.items():
        if name in ("tile_sums", "losses", "predictions", "confidences") or name.startswith("dense"):
            array[...] = -77


def results_of(computation: Computation) -> dict[str, bytes]:
    return {
        name: array.tobytes()
        for name, array in computation.arrays.items()
        if name in ("tile_sums", "losses", "predictions", "confidences") or name.startswith("dense")
    }


@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float32"), ("loops", "float64")])
def test_tile_has_the_same_bits_in_any_order_and_any_grouping(
    make_computation: Callable[..., Computation], kernels: str, dtype: str
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype)
    spoil_results(computation)
    TileComputer(computation).carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20))
    expected = results_of(computation)
    spoil_results(computation)
    computer = TileComputer(computation)
    for first, last in ((18, 20), (9, 18), (3, 9), (0, 3), (9, 12)):
        computer.carry_out(Command(Operation.GRADIENTS, TRAIN, first, last))
    assert results_of(computation) == expected


def test_one_computer_takes_any_ranges_again_and_again_with_other_examples_and_parameters(
    make_computation: Callable[..., Computation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_computer, "MOST_PARTS", 2)
    computation = make_computation()
    arrays, rng = computation.arrays, np.random.default_rng(0)
    computer, vectors = TileComputer(computation), (arrays["parameters"], arrays["parameters"] * np.float32(0.5))
    for first, last, number in ((0, 20, 0), (0, 6, 1), (6, 12, 1), (12, 18, 0), (0, 20, 1), (0, 20, 0), (6, 12, 0)):
        arrays["indices"][:20] = rng.permutation(60)[:20]
        command, results = Command(Operation.GRADIENTS, TRAIN, first, last), []
        for each in (computer, TileComputer(computation)):
            spoil_results(computation)
            each.carry_out(command, parameters=vectors[number])
            results.append(results_of(computation))
        assert results[0] == results[1]


def test_small_last_tile_knows_nothing_of_the_larger_one_before_it(
    make_computation: Callable[..., Computation],
) -> None:
    computation = make_computation()
    spoil_results(computation)
    TileComputer(computation).carry_out(Command(Operation.GRADIENTS, TRAIN, 18, 20))
    alone = computation.arrays["tile_sums"][6].tobytes()
    TileComputer(computation).carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20))
    assert computation.arrays["tile_sums"][6].tobytes() == alone


def test_command_writes_only_what_belongs_to_its_positions(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation()
    arrays = computation.arrays
    spoil_results(computation)
    TileComputer(computation).carry_out(Command(Operation.GRADIENTS, TRAIN, 6, 12))
    for name in ("dense1.inputs", "dense1.deltas", "dense2.inputs", "dense2.deltas", "losses", "predictions"):
        assert (arrays[name][:6] == -77).all()
        assert (arrays[name][12:] == -77).all()
        assert not (arrays[name][6:12] == -77).all()
    assert (arrays["tile_sums"][[0, 1, 4, 5, 6]] == -77).all()
    assert not (arrays["tile_sums"][2:4] == -77).any()


def test_step_writes_no_confidences_and_an_evaluation_nothing_else_besides_its_results(
    make_computation: Callable[..., Computation],
) -> None:
    computation = make_computation()
    for operation, written in ((Operation.GRADIENTS, False), (Operation.EVALUATION, True)):
        spoil_results(computation)
        TileComputer(computation).carry_out(Command(operation, TRAIN, 0, 12))
        assert (computation.arrays["confidences"][:12] != -77).all() == written
        assert (computation.arrays["tile_sums"] == -77).all() == written


def test_gradients_are_of_the_examples_that_the_indices_name(
    make_computation: Callable[..., Computation],
) -> None:
    computation = make_computation()
    arrays = computation.arrays
    computer = TileComputer(computation)
    computer.carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20))
    of_batch = arrays["losses"][:20].copy()
    computer.carry_out(Command(Operation.EVALUATION, TRAIN, 0, 60))
    assert of_batch.tolist() == arrays["losses"][arrays["indices"]].tolist()


def test_evaluation_writes_the_results_of_its_own_examples_alone(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation()
    losses = computation.arrays["losses"]
    computer = TileComputer(computation)
    computer.carry_out(Command(Operation.EVALUATION, TEST, 0, 50))
    all_losses = losses[:50].copy()
    spoil_results(computation)
    computer.carry_out(Command(Operation.EVALUATION, TEST, 5, 15))
    assert losses[5:15].tolist() == all_losses[5:15].tolist()
    assert (losses[:5] == -77).all()
    assert (losses[15:] == -77).all()


def test_evaluation_leaves_the_gradients_alone(make_computation: Callable[..., Computation]) -> None:
    computation = make_computation()
    spoil_results(computation)
    TileComputer(computation).carry_out(Command(Operation.EVALUATION, TEST, 0, 50))
    assert (computation.arrays["tile_sums"] == -77).all()
    assert (computation.arrays["dense1.deltas"] == -77).all()


def test_change_of_the_parameters_is_seen_by_the_next_command(
    make_computation: Callable[..., Computation],
) -> None:
    computation = make_computation()
    computer = TileComputer(computation)
    computer.carry_out(Command(Operation.EVALUATION, TEST, 0, 50))
    before = computation.arrays["losses"][:50].copy()
    computation.arrays["parameters"][:] = 0
    computer.carry_out(Command(Operation.EVALUATION, TEST, 0, 50))
    assert np.allclose(computation.arrays["losses"][:50], np.log(10), rtol=1e-6)
    assert not np.allclose(before, np.log(10), rtol=1e-3)


def test_command_that_is_not_wanted_any_more_is_left_between_two_calls(
    make_computation: Callable[..., Computation],
) -> None:
    computation = make_computation(kernels="loops")
    computer = TileComputer(computation)
    computation.arrays["predictions"][:] = -1
    answers = iter([True, False])
    computer.carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20), is_wanted=lambda: next(answers))
    assert (computation.arrays["predictions"][:20] >= 0).sum() == 2 * computation.tiling.tile_size


@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float64")])
def test_class_weights_multiply_loss_and_gradient_of_a_step_and_leave_evaluations_alone(
    make_computation: Callable[..., Computation], kernels: str, dtype: str
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype, tile=1)
    weights = tuple(0.25 * (k + 1) for k in range(10))
    weighted = replace(computation, class_weights=weights)
    arrays = computation.arrays
    results = []
    for each in (computation, weighted):
        TileComputer(each).carry_out(Command(Operation.GRADIENTS, TRAIN, 0, 20))
        names = ("losses", "tile_sums", "dense2.deltas", "predictions")
        results.append({name: arrays[name][:20].copy() for name in names})
    plain, scaled = results
    expected = np.array(weights)[arrays["train.labels"][arrays["indices"]]]
    assert scaled["losses"] == pytest.approx(plain["losses"] * expected, rel=1e-6)
    assert scaled["dense2.deltas"] == pytest.approx(plain["dense2.deltas"] * expected[:, None], rel=1e-5, abs=1e-8)
    assert scaled["tile_sums"] == pytest.approx(plain["tile_sums"] * expected[:, None], rel=1e-4, abs=1e-6)
    assert np.array_equal(scaled["predictions"], plain["predictions"])
    evaluations = []
    for each in (computation, weighted):
        spoil_results(each)
        TileComputer(each).carry_out(Command(Operation.EVALUATION, TEST, 0, 20))
        evaluations.append(results_of(each))
    assert evaluations[0] == evaluations[1]


# ---- what is random in a step

CHANGES = ExampleChanges(
    Augment(shift=(1.0, 2.0), rotation=20.0, elastic=Elastic(alpha=20.0, sigma=3.0), flip="both", contrast=0.5),
    Mixup(alpha=0.4),
    Cutmix(alpha=1.0),
    label_smoothing=0.1,
)


def gradients_of(computation: Computation, commands: Sequence[Command]) -> dict[str, bytes]:
    spoil_results(computation)
    computer = TileComputer(computation)
    for command in commands:
        computer.carry_out(command)
    return results_of(computation)


@pytest.fixture(params=[("fast", "float32"), ("loops", "float32"), ("loops", "float64")], ids=str)
def random_computation(request: pytest.FixtureRequest, make_computation: Callable[..., Computation]) -> Computation:
    """A computation with dropout, whose images are augmented and mixed."""
    kernels, dtype = request.param
    drop = {"dropout": {"rate": 0.3}}
    return replace(make_computation(kernels=kernels, dtype=dtype, more_layers={3: drop, 7: drop}), changes=CHANGES)


def test_random_tile_has_the_same_bits_in_any_order_and_any_grouping(random_computation: Computation) -> None:
    expected = gradients_of(random_computation, [Command(Operation.GRADIENTS, TRAIN, 0, 20, epoch=2)])
    pieces = [(18, 20), (9, 18), (3, 9), (0, 3), (9, 12)]
    commands = [Command(Operation.GRADIENTS, TRAIN, first, last, epoch=2) for first, last in pieces]
    assert gradients_of(random_computation, commands) == expected


def test_random_tile_is_another_one_in_another_epoch_and_with_another_seed(random_computation: Computation) -> None:
    whole = Command(Operation.GRADIENTS, TRAIN, 0, 20)
    first = gradients_of(random_computation, [whole])
    for other in (
        gradients_of(random_computation, [whole._replace(epoch=1)]),
        gradients_of(replace(random_computation, seed=1), [whole]),
        gradients_of(replace(random_computation, changes=NO_CHANGES), [whole]),
    ):
        assert other["losses"] != first["losses"]
    assert gradients_of(random_computation, [whole]) == first


@pytest.mark.parametrize("split", [TRAIN, TEST])
def test_evaluation_has_nothing_random_in_it(random_computation: Computation, split: SplitName) -> None:
    command = Command(Operation.EVALUATION, split, 0, 17)
    expected = gradients_of(replace(random_computation, changes=NO_CHANGES), [command])
    for epoch in (0, 1):
        step = Command(Operation.GRADIENTS, TRAIN, 0, 20, epoch=epoch)
        spoil_results(random_computation)
        computer = TileComputer(random_computation)
        computer.carry_out(step)
        spoil_results(random_computation)
        computer.carry_out(command)
        assert results_of(random_computation) == expected


def test_command_goes_through_a_mailbox_as_numbers() -> None:
    commands = [
        Command(operation, split, 3, 20, epoch=2)
        for operation in Operation
        if operation != Operation.STEPS
        for split in SplitName
    ]
    for command in (*commands, StepsCommand(first_step=7, num_examples=32, member=1, num_members=3)):
        assert len(command.encode()) == FIELDS
        assert decode(command.encode()) == command
