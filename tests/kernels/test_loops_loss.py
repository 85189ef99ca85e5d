"""Shapes: N examples; E classes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from partrain.kernels import loops
from partrain.kernels.compiler.loading import load
from partrain.kernels.loops_loss import softmax_soft_cross_entropy
from tests.kernels import oracles

BOTH_TYPES = pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    for dtype in ("float32", "float64"):
        load([softmax_soft_cross_entropy, loops.softmax_cross_entropy], dtype)


def soft(logits, labels, partner_labels, shares, smoothing):
    N, E = logits.shape
    losses, predicted, confidences = np.full(N, np.nan), np.full(N, -1), np.full(N, np.nan)
    dlogits = np.full((N, E), np.nan, logits.dtype)
    softmax_soft_cross_entropy(
        logits, labels, partner_labels, shares, smoothing, losses, predicted, confidences, dlogits
    )
    return losses, predicted, confidences, dlogits


def drawn(N, E, dtype="float64"):
    rng = np.random.default_rng(N * E)
    logits, shares = (3 * rng.standard_normal((N, E))).astype(dtype), rng.uniform(0, 1, N)
    return logits, *rng.integers(0, E, (2, N)), shares


@BOTH_TYPES
@pytest.mark.parametrize(("N", "E"), [(1, 1), (4, 10), (7, 3), (2, 1000)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.999])
def test_loss_is_the_cross_entropy_of_the_mixed_and_smoothed_targets(dtype, tolerance, N, E, smoothing):
    logits, labels, partner_labels, shares = drawn(N, E, dtype)
    losses, predicted, confidences, dlogits = soft(logits, labels, partner_labels, shares, smoothing)
    one_hot, shares = np.eye(E), shares[:, None]
    targets = (1 - smoothing) * (shares * one_hot[labels] + (1 - shares) * one_hot[partner_labels]) + smoothing / E
    log_probabilities = special.log_softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(losses, -(targets * log_probabilities).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(dlogits, np.exp(log_probabilities) - targets, rtol=10 * tolerance, atol=tolerance)
    np.testing.assert_allclose(confidences, np.exp(log_probabilities).max(axis=1), rtol=1e-12)
    assert np.array_equal(predicted, logits.argmax(axis=1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_of_the_loss_is_its_slope(smoothing):
    logits, *targets = drawn(6, 10)
    gradient = soft(logits, *targets, smoothing)[3]
    oracles.check_gradient(lambda z: float(soft(z, *targets, smoothing)[0].sum()), logits, gradient)


@BOTH_TYPES
def test_targets_of_one_class_have_the_plain_loss(dtype, tolerance):
    logits, labels, partner_labels, _ = drawn(20, 10, dtype)
    plain = np.empty(20), np.empty(20, np.int64), np.empty(20), np.empty_like(logits)
    loops.softmax_cross_entropy(logits, labels, *plain)
    ways = (
        (labels, partner_labels, np.ones(20)),
        (partner_labels, labels, np.zeros(20)),
        (labels, labels, np.full(20, 0.3)),
    )
    for way in ways:
        for actual, expected in zip(soft(logits, *way, 0.0), plain, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=10 * tolerance, atol=tolerance)


@BOTH_TYPES
def test_logits_that_are_not_finite_are_seen_in_the_loss(dtype, tolerance):
    logits = np.zeros((2, 3), dtype)
    logits[0, 2], logits[1, 0] = np.nan, np.inf
    losses = soft(logits, np.array([0, 1]), np.array([1, 1]), np.array([0.5, 1.0]), 0.1)[0]
    assert not np.isfinite(losses).any()
