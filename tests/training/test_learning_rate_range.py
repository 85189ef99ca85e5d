from __future__ import annotations

import math
from typing import Any

import pytest

from partrain.config.reader import parse_config
from partrain.config.schema.config import Config
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.training.learning_rate_range import RangeTest, run_range_test
from partrain.training.session import Session
from tests.small_run import SMALL_CONFIG


def session(num_workers: int = 0) -> Session:
    return Session(num_workers, ["test"], Messages(quiet=True), Interruption())


def config(**training: Any) -> Config:
    return parse_config(SMALL_CONFIG | {"training": SMALL_CONFIG["training"] | training}, source="a test")


def curve(num_steps: int = 100) -> RangeTest:
    """Return a test whose loss falls fastest at 1e-3, is smallest at 1e-2, and then rises. Rates end at 1."""
    rates = [10 ** (-5 + 5 * step / (num_steps - 1)) for step in range(num_steps)]
    losses = [
        2.0 - 0.75 * (1 + math.tanh(3 * (math.log10(rate) + 3))) + max(0.0, math.log10(rate) + 2) for rate in rates
    ]
    return RangeTest(num_steps, rates, losses)


def test_suggestion_lies_between_the_fastest_fall_and_the_smallest_loss() -> None:
    test = curve()
    assert test.steepest is not None
    assert test.smallest is not None
    assert test.rates[test.steepest] == pytest.approx(1e-3, rel=0.2)
    assert test.rates[test.smallest] == pytest.approx(1e-2, rel=0.4)
    assert test.suggestion == pytest.approx(math.sqrt(1e-3 * 1e-2), rel=0.3)


def test_loss_that_still_falls_at_the_last_rate_gives_no_suggestion_unless_the_rate_is_too_large() -> None:
    whole = curve()
    half = RangeTest(100, whole.rates[:50], whole.losses[:50])
    assert half.still_falls
    assert half.steepest is not None
    assert half.suggestion is None
    half.diverged = True
    assert half.suggestion is not None


def test_smoothed_loss_is_that_of_steps_on_both_sides() -> None:
    constant = RangeTest(100, [1.0] * 50, [3.0] * 50)
    assert constant.smoothed == pytest.approx([3.0] * 50)
    falling = RangeTest(100, [1.0] * 50, [float(-step) for step in range(50)])
    assert falling.smoothed[10:40] == pytest.approx(falling.losses[10:40])  # an average of earlier steps would lag


FLAT: dict[str, list[float]] = {
    "constant": [2.0] * 40,
    "rising": [2.0 + step for step in range(40)],
    "slow": [2.0 - step / 1e4 for step in range(40)],
    "noisy": [2.0 + (step * 7919 % 11 - 5) / 10 for step in range(40)],
    "none": [],
}


@pytest.mark.parametrize("losses", FLAT.values(), ids=FLAT)
def test_loss_that_hardly_falls_gives_no_suggestion(losses: list[float]) -> None:
    test = RangeTest(40, [1e-6 * 1.1**step for step in range(len(losses))], losses)
    assert (test.steepest, test.suggestion) == (None, None)


def test_rate_rises_exponentially_whatever_the_configured_schedule() -> None:
    schedules: list[dict[str, Any]] = [{}, {"schedule": {"name": "cosine", "warmup_steps": 7}}]
    tests = [run_range_test(config(**schedule), 1e-4, 1e-2, 21, session()) for schedule in schedules]
    assert tests[0] == tests[1]
    test = tests[0]
    assert (len(test.losses), test.ending) == (21, None)  # more than the ten steps of the training
    assert test.rates == pytest.approx([1e-4 * 10 ** (step / 10) for step in range(21)])


def test_rates_of_muon_rise_together_whatever_is_configured() -> None:
    optimizers = [{"name": "muon", "lr": lr, "adam_lr": lr / 4} for lr in (0.25, 0.5)]
    tests = [run_range_test(config(optimizer=each), 2.0**-10, 1.0, 20, session()) for each in optimizers]
    assert tests[0] == tests[1]
    other = run_range_test(config(optimizer={"name": "muon", "lr": 0.5, "adam_lr": 0.5}), 2.0**-10, 1.0, 20, session())
    assert other.losses != tests[0].losses


@pytest.mark.parametrize("changes", [{}, {"per_example": {"clip": 0.5}}, {"optimizer": {"name": "muon"}}], ids=str)
def test_number_of_workers_changes_no_number(changes: dict[str, Any]) -> None:
    tests = [run_range_test(config(**changes), 1e-4, 1e-1, 20, session(workers)) for workers in (0, 2)]
    assert tests[0] == tests[1]


def test_first_losses_are_those_of_a_training_at_the_lowest_rate() -> None:
    first = [run_range_test(config(), lowest, 1.0, 30, session()).losses[0] for lowest in (1e-6, 1e-3)]
    assert first[0] == first[1]


@pytest.mark.parametrize(
    ("highest", "changes", "reason"),
    [(100.0, {}, "times its minimum"), (1e38, {"optimizer": {"weight_decay": 1e37}}, "not finite")],
)
def test_divergence_ends_the_test(highest: float, changes: dict[str, Any], reason: str) -> None:
    test = run_range_test(config(**changes), 1e-3, highest, 60, session())
    assert 0 < len(test.losses) < 60
    assert test.ending is not None
    assert reason in test.ending
    assert all(math.isfinite(loss) for loss in test.losses)
