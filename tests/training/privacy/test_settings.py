from __future__ import annotations

import pytest

from partrain.config.schema.training import Training
from partrain.training.privacy.settings import resolve_privacy


def unexpected(message: str) -> None:
    pytest.fail(f"a warning: {message}")


def test_epsilon_of_the_steps_made_does_not_depend_on_the_planned_number_of_steps() -> None:
    epsilons = set()
    for epochs in (1, 3, 100):
        training = Training.model_validate(
            {
                "epochs": epochs,
                "batch_size": 32,
                "per_example": {"clip": 1.0},
                "privacy": {"delta": 1e-5, "noise_multiplier": 0.45},
            }
        )
        _, accountant = resolve_privacy(training, 5_000, unexpected)
        assert accountant is not None
        epsilons.add(accountant.epsilon(100))
    assert len(epsilons) == 1
