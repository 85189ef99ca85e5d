from __future__ import annotations

import json

import numpy as np
import pytest

from partrain.training.gradient_statistics import GradientNoiseScale, norm_metrics


def test_noise_scale_of_drawn_gradients_is_trace_of_covariance_over_squared_mean() -> None:
    """Gradients mean + deviation · normal: S is the sum of the variances, |G|² that of the mean."""
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=40), 0.5 + rng.random(40)
    expected = (deviation**2).sum() / (mean**2).sum()
    scale = GradientNoiseScale()
    values = []
    for _ in range(400):
        gradients = mean + deviation * rng.standard_normal((16, 40))
        scale.observe(np.sqrt((gradients**2).sum(axis=1)), float((gradients.sum(axis=0) ** 2).sum()))
        values.append(scale.value)
    assert np.mean(values[100:]) == pytest.approx(expected, rel=0.05)


def test_noise_scale_goes_on_from_its_state_to_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    steps = [(rng.random(8), float(rng.random() * 8)) for _ in range(10)]
    whole, first = GradientNoiseScale(), GradientNoiseScale()
    for step in steps:
        whole.observe(*step)
    for step in steps[:6]:
        first.observe(*step)
    second = GradientNoiseScale(json.loads(json.dumps(first.state)))
    for step in steps[6:]:
        second.observe(*step)
    assert second.state == whole.state


def test_one_example_teaches_nothing_about_the_noise() -> None:
    scale = GradientNoiseScale()
    scale.observe(np.array([3.0]), 9.0)
    assert scale.value is None
    assert "not known" in scale.advice(32)


@pytest.mark.parametrize(("batch_size", "word"), [(10, "smaller"), (100, "close"), (1000, "larger")])
def test_advice_says_how_the_batch_compares(batch_size: int, word: str) -> None:
    scale = GradientNoiseScale({"noise": 100.0, "signal": 1.0})
    assert f"is {word}" in scale.advice(batch_size)
    assert "gradient noise scale 100 examples" in scale.advice(batch_size)


@pytest.mark.parametrize("num_examples", [1, 2, 20, 21, 30])
def test_norm_metrics_are_numpys(num_examples: int) -> None:
    norms = np.random.default_rng(num_examples).lognormal(sigma=3, size=num_examples)
    squared = (norms * norms)[:, np.newaxis]
    values = norm_metrics(squared, ["dense1"], by_layer=False).values()
    expected = [np.mean(norms), np.median(norms), np.quantile(norms, 0.95), np.max(norms)]
    assert list(values) == pytest.approx(expected, rel=1e-14)


def test_norm_metrics_are_those_of_the_whole_gradient_and_of_each_layer() -> None:
    squared = np.array([[9.0, 16.0], [0.0, 1.0], [4.0, 0.0]])
    metrics = norm_metrics(squared, ["conv1", "dense1"], by_layer=True)
    norms = [5.0, 1.0, 2.0]
    assert metrics["train/gradient_norm/mean"] == pytest.approx(np.mean(norms))
    assert metrics["train/gradient_norm/median"] == 2.0
    assert metrics["train/gradient_norm/p95"] == pytest.approx(np.percentile(norms, 95))
    assert metrics["train/gradient_norm/max/dense1"] == 4.0
    assert len(metrics) == 12
    assert len(norm_metrics(squared, ["conv1", "dense1"], by_layer=False)) == 4
