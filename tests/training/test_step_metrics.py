"""The accuracy of a batch whose targets are mixed or smoothed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.reader import read_config
from partrain.kernels.mixing import draw_mixing
from partrain.kernels.randomness import philox_key
from partrain.parallel.compute_resources import compute_resources
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.training.plan import plan_training
from partrain.training.step.composition import compose_step, make_model
from partrain.training.step_metrics import make_accuracy
from tests.noise_data import noise_examples, write_idx_folder
from tests.small_run import write_small_config


@pytest.mark.parametrize(
    ("changes", "probabilities"),
    [
        ({"training.label_smoothing": 0.3}, (0.0, 0.0)),
        ({"training.mixup": {"alpha": 1.0}}, (1.0, 0.0)),
        ({"training.mixup": {"alpha": 1.0}, "training.cutmix": {"alpha": 1.0, "probability": 0.25}}, (0.75, 0.25)),
    ],
    ids=["smoothed", "mixup", "mixup and CutMix"],
)
def test_accuracy_is_the_mean_share_of_the_predicted_class_in_its_target(
    changes: dict[str, Any], probabilities: tuple[float, float], tmp_path: Path
) -> None:
    folder = write_idx_folder(tmp_path / "noise", noise_examples(90), noise_examples(20, seed=1))
    data = {"name": "idx", "path": str(folder), "train_examples": 80, "validation_examples": 10}
    plan = plan_training(
        read_config(write_small_config(tmp_path, {"data": data, "seed": 3, **changes})), say=print, warn=print
    )
    with compute_resources(plan.compute_plan(), 0, Messages(quiet=True), Interruption()) as resources:
        arrays = resources.arrays
        with resources.group(0, max_restarts=0, log=print) as group:
            step = compose_step(plan, arrays, group, make_model(plan, arrays))
            accuracies = []
            for number in range(1, 7):  # from the fifth on, in the second epoch
                batch = step.make(number).batch
                key = philox_key(seed=3, purpose="mixing", epoch=int(number > 4))
                partners, shares = np.full(20, -1), np.full(20, np.nan)
                unused = np.empty(20), np.empty((20, 4), np.int64)
                if any(probabilities):
                    draw_mixing(
                        key, batch.indices_N, 80, probabilities, (1.0, 1.0), (28, 28), partners, shares, *unused
                    )
                else:
                    partners, shares = batch.indices_N, np.ones(20)
                predictions, labels = batch.result("predictions"), plan.dataset.train.labels
                agrees = [(predictions == labels[examples]) for examples in (batch.indices_N, partners)]
                expected = (shares * agrees[0] + (1 - shares) * agrees[1]).mean()
                accuracies.append(make_accuracy(plan)(number, batch))
                assert accuracies[-1] == pytest.approx(expected, rel=1e-12)
            assert len(set(accuracies)) > 1
