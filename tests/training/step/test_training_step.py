"""Steps of different parts that must have the same bits, and steps that must not be committed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.reader import read_config
from partrain.errors import FailedRun
from partrain.parallel.compute_resources import compute_resources
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.training.plan import TrainingPlan, plan_training
from partrain.training.step.composition import compose_step, make_model
from partrain.training.step.gradient import BatchGradient, GradientInRounds, TiledGradient
from partrain.training.step.phase_timer import PhaseTimer
from partrain.training.step.training_step import TrainingStep
from partrain.training.step.update import UpdateFromSum
from tests.noise_data import noise_examples, write_idx_folder
from tests.small_run import write_small_config

STEPS = 4
Exchange = Callable[[TrainingStep, TrainingPlan, Any], None]


def keep(step: TrainingStep, plan: TrainingPlan, arrays: Any) -> None:
    """Change no part."""


def update_from_sum(step: TrainingStep, plan: TrainingPlan, arrays: Any) -> None:
    step.update = UpdateFromSum(step.model.update, plan.config.training.batch_size)


def compute_in_rounds(step: TrainingStep, plan: TrainingPlan, arrays: Any) -> None:
    assert isinstance(step.gradient, TiledGradient)
    step.gradient = GradientInRounds(step.gradient, arrays)
    update_from_sum(step, plan, arrays)


def digest_after(
    tmp_path: Path, changes: dict[str, Any] | None = None, exchange: Exchange = keep, *, timed: bool = False
) -> str:
    """Make some steps in this process with exchanged parts; return the digest of the parameters."""
    folder = write_idx_folder(tmp_path / "noise", noise_examples(90), noise_examples(20, seed=1))
    data = {"name": "idx", "path": str(folder), "train_examples": 80, "validation_examples": 10}
    config = read_config(write_small_config(tmp_path, {"data": data, **(changes or {})}))
    plan = plan_training(config, say=print, warn=print)
    with compute_resources(plan.compute_plan(), 0, Messages(quiet=True), Interruption()) as resources:
        arrays = resources.arrays
        with resources.group(0, max_restarts=0, log=print) as group:
            step = compose_step(plan, arrays, group, make_model(plan, arrays))
            exchange(step, plan, arrays)
            for number in range(1, STEPS + 1):
                result = step.make(number, timer=PhaseTimer() if timed else None)
                assert step.model.step == number
                assert result.batch.num_examples == 20
                assert np.isfinite(result.batch.losses_N).all()
            step.model.close()
            return step.model.parameters_sha256()


CLIPS_NOTHING = {"training.per_example": {"clip": 1e9}}


@pytest.mark.parametrize(
    ("changes", "exchange", "timed"),
    [
        ({}, update_from_sum, False),
        ({}, keep, True),
        (CLIPS_NOTHING, keep, False),
        (CLIPS_NOTHING, compute_in_rounds, False),
        ({"training.per_example": {"statistics": True}}, keep, False),
    ],
    ids=["update from the sum", "timed", "clip above every norm", "in rounds", "statistics"],
)
def test_step_of_other_parts_has_the_same_bits(
    tmp_path: Path, changes: dict[str, Any], exchange: Exchange, timed: bool
) -> None:
    assert digest_after(tmp_path, changes, exchange, timed=timed) == digest_after(tmp_path)


def test_clipping_that_has_an_effect_changes_the_bits(tmp_path: Path) -> None:
    assert digest_after(tmp_path, {"training.per_example": {"clip": 0.01}}) != digest_after(tmp_path)


def test_model_after_a_failed_update_belongs_to_no_step(tmp_path: Path) -> None:
    models = []

    class FailingUpdate:
        def apply(self, batch: BatchGradient, step: int, timer: PhaseTimer | None = None) -> None:
            raise FailedRun("in the middle of an update")

    def fail(step: TrainingStep, plan: TrainingPlan, arrays: Any) -> None:
        models.append(step.model)
        step.update = FailingUpdate()

    with pytest.raises(FailedRun, match="in the middle of an update"):
        digest_after(tmp_path, exchange=fail)
    assert models[0].step is None


def test_gradient_that_is_not_finite_leaves_the_model_at_its_step(tmp_path: Path) -> None:
    models = []

    def spoil(step: TrainingStep, plan: TrainingPlan, arrays: Any) -> None:
        models.append(step.model)
        arrays["parameters"][-1] = np.nan

    with pytest.raises(FailedRun, match=r"step 1: .* is not finite .* did not change the parameters"):
        digest_after(tmp_path, exchange=spoil)
    assert models[0].step == 0
