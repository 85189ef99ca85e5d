"""Activations: float64 functions against SciPy, loops against slopes, fast kernels against the loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from partrain.kernels import activations, elementary_activations, loops_activations
from partrain.kernels.compiler.loading import load

PAIRS = {
    "gelu": (activations.gelu_forward, loops_activations.gelu),
    "gelu by tanh": (activations.gelu_by_tanh_forward, loops_activations.gelu_by_tanh),
    "silu": (activations.silu_forward, loops_activations.silu),
    "tanh": (activations.tanh_forward, loops_activations.hyperbolic_tangent),
    "sigmoid": (activations.sigmoid_forward, loops_activations.sigmoid),
}
EXPECTED = {
    "gelu": lambda x: x * special.ndtr(x),
    "gelu by tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * special.expit(x),
    "tanh": np.tanh,
    "sigmoid": special.expit,
}


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    load([fast for fast, _ in PAIRS.values()] + [activations.leaky_relu_forward], "float32")
    load([loop for _, loop in PAIRS.values()] + [loops_activations.leaky_relu], "float64")


def drawn(num=20_000):
    rng = np.random.default_rng(0)
    return np.concatenate([3 * rng.standard_normal(num), np.linspace(-30, 30, num), 10.0 ** rng.uniform(-30, 1, num)])


@pytest.mark.parametrize(("name", "exact"), [("tanh", np.tanh), ("erf", special.erf), ("logistic", special.expit)])
def test_functions_in_float64_are_those_of_scipy_up_to_a_few_roundings(name, exact):
    x = np.concatenate([drawn(), -drawn(), np.linspace(-700, 700, 9_999)])
    np.testing.assert_allclose(getattr(elementary_activations, name)(x), exact(x), rtol=2.0**-50, atol=0)


@pytest.mark.parametrize("name", PAIRS)
def test_loops_are_the_formula_and_its_slope(name):
    x = np.linspace(-5, 5, 2_001)
    y, d, above, below, unused = (np.empty_like(x) for _ in range(5))
    loop = PAIRS[name][1]
    loop(x, y, d)
    np.testing.assert_allclose(y, EXPECTED[name](x), rtol=1e-12, atol=1e-15)
    loop(x + 1e-6, above, unused)
    loop(x - 1e-6, below, unused)
    np.testing.assert_allclose(d, (above - below) / 2e-6, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", PAIRS)
def test_fast_kernels_are_the_loops_up_to_rounding(name):
    x = drawn().astype(np.float32)
    x[::2] *= -1
    y, d = np.empty_like(x), np.empty_like(x)
    exact_y, exact_d = np.empty(x.size), np.empty(x.size)
    fast, loop = PAIRS[name]
    fast(x, y, d)
    loop(x.astype(np.float64), exact_y, exact_d)
    bound = 4 * 2.0**-24 * np.maximum(1, np.abs(x))
    assert (np.abs(y - exact_y) <= bound).all()
    assert (np.abs(d - exact_d) <= 2 * bound).all()


@pytest.mark.parametrize("name", PAIRS)
def test_nan_stays_nan_and_large_numbers_stay_finite(name):
    x = np.array([np.nan, 1e30, -1e30, 200, -200, 0], np.float32)
    y, d = np.empty_like(x), np.empty_like(x)
    PAIRS[name][0](x, y, d)
    assert np.isnan(y[0])
    expected = EXPECTED[name](x[3:].astype(np.float64))
    np.testing.assert_allclose(y[3:], expected, rtol=1e-6, atol=1e-30)


def test_leaky_relu_multiplies_negative_numbers_by_its_slope():
    x = np.array([-2, -0.5, 0, 3], np.float32)
    y, d = np.empty_like(x), np.empty_like(x)
    activations.leaky_relu_forward(x, np.array([0.25], np.float32), y, d)
    assert (y.tolist(), d.tolist()) == ([-0.5, -0.125, 0, 3], [0.25, 0.25, 0.25, 1])
    exact_y, exact_d = np.empty(4), np.empty(4)
    loops_activations.leaky_relu(x.astype(np.float64), 0.25, exact_y, exact_d)
    assert (exact_y.tolist(), exact_d.tolist()) == (y.tolist(), d.tolist())
