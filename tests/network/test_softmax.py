from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from partrain.kernels import loops
from partrain.kernels.compiler.loading import load
from partrain.network.softmax import softmax


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_is_that_of_scipy_and_does_not_overflow(dtype: type) -> None:
    rng = np.random.Generator(np.random.Philox(key=0))
    logits = (rng.standard_normal((40, 10)) * 10 ** rng.uniform(-3, 3, (40, 1))).astype(dtype)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, special.softmax(logits.astype(np.float64), axis=1), rtol=1e-12)


def test_bits_are_those_of_the_kernel_that_trains() -> None:
    load([loops.softmax_cross_entropy], "float64")
    logits = 3 * np.random.Generator(np.random.Philox(key=0)).standard_normal((40, 10))
    confidences, dlogits, labels = np.empty(40), np.empty_like(logits), np.zeros(40, np.int64)
    loops.softmax_cross_entropy(logits, labels, np.empty(40), labels.copy(), confidences, dlogits)
    probabilities = softmax(logits)
    assert np.array_equal(probabilities.max(axis=1), confidences)
    assert np.array_equal(probabilities[:, 1:], dlogits[:, 1:])


def test_logits_that_are_not_finite_give_no_number() -> None:
    assert np.isnan(softmax(np.array([[np.inf, 0], [np.nan, 1]]))).all()
