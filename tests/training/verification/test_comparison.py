"""Epsilon has no fixed bits: a verification accepts one that differs by rounding errors, and no other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from partrain.errors import VerificationFailed
from partrain.store.checkpoint import Checkpoint
from partrain.training.verification.comparison import MetricsComparison, state_differences


def row(epsilon: Any) -> dict[str, Any]:
    return {"step": 20, "epoch": 1.0, "privacy/epsilon": epsilon}


def state(epsilon: float, delta: float = 1e-5) -> Checkpoint:
    tensors = {"dense1.bias": np.zeros(3, np.float32)}
    return Checkpoint(tensors, {"step": 20, "privacy": {"epsilon": epsilon, "delta": delta}})


@pytest.mark.parametrize("stored", [0.1446, 0.1446 * (1 + 1e-9), 0.1446 * (1 - 1e-9), math.nextafter(0.1446, 1)])
def test_epsilon_with_other_rounding_errors_is_verified(stored: float) -> None:
    metrics = MetricsComparison("metrics.jsonl", [row(stored)])
    metrics.append(row(0.1446))
    assert metrics.num_equal == 1
    assert list(state_differences(state(stored), state(0.1446))) == []


@pytest.mark.parametrize("stored", [0.1, 0.14459, 0.14461, 0.1448, 0.2188])
def test_another_epsilon_is_a_difference(stored: float) -> None:
    with pytest.raises(VerificationFailed, match=rf"privacy/epsilon is {stored}"):
        MetricsComparison("metrics.jsonl", [row(stored)]).append(row(0.1446))
    (difference,) = state_differences(state(stored), state(0.1446))
    assert difference.startswith(f"privacy.epsilon is {stored}, recomputed ")


@pytest.mark.parametrize("stored", [None, "0.2188", True, float("nan")])
def test_epsilon_that_is_no_number_is_a_difference(stored: Any) -> None:
    with pytest.raises(VerificationFailed, match="privacy/epsilon"):
        MetricsComparison("metrics.jsonl", [row(stored)]).append(row(2.0))


def test_the_rest_of_the_privacy_has_to_be_the_same() -> None:
    (difference,) = state_differences(state(0.1446), state(0.1446, delta=1e-6))
    assert difference.startswith("privacy.delta")
