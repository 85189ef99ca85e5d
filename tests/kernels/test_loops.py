"""The loops that have no file of their own: gather, ReLU, softmax, sums of slots, the search for NaN.

Shapes: N examples; M all images; C, H, W channels, rows, columns; E logits; T slots; K parameters.
"""

from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels import loops
from partrain.kernels.compiler.loading import load
from tests.kernels import oracles

# (dtype, relative tolerance)
BOTH_TYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)], ids=["float64", "float32"]
)


KERNELS = (
    loops.gather_normalised,
    loops.relu_forward,
    loops.relu_backward_input,
    loops.softmax_cross_entropy,
    loops.sum_slots,
    loops.first_not_finite,
)


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load(KERNELS, "float32")
    load(KERNELS, "float64")


@BOTH_TYPES
@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
@pytest.mark.parametrize("shape_CHW", [(1, 28, 28), (3, 5, 7), (2, 1, 1)])
def test_gathered_images_are_the_chosen_ones_normalised_by_channel(dtype, tolerance, pixel_type, shape_CHW):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, *shape_CHW)).astype(pixel_type)
    indices = np.array([10, 0, 3, 3], np.int64)
    mean, inverse_std = rng.uniform(1, 90, shape_CHW[0]), rng.uniform(0.01, 2, shape_CHW[0])
    x = np.full((4, *shape_CHW), np.nan, dtype)
    loops.gather_normalised(images, indices, mean.astype(dtype), inverse_std.astype(dtype), x)
    expected = (images[indices].astype(np.float64) - mean[:, None, None]) * inverse_std[:, None, None]
    np.testing.assert_allclose(x, expected, rtol=tolerance, atol=500 * tolerance)


def test_a_nan_among_the_pixels_is_gathered_as_nan():
    images = np.zeros((2, 1, 3, 3), np.float32)
    images[1, 0, 2, 1] = np.nan
    x = np.zeros((1, 1, 3, 3), np.float32)
    loops.gather_normalised(images, np.array([1]), np.zeros(1, np.float32), np.ones(1, np.float32), x)
    assert np.array_equal(np.isnan(x), np.isnan(images[1:]))


def relu(x, dy):
    y, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
    loops.relu_forward(x, y)
    loops.relu_backward_input(dy, y, dx)
    return y, dx


@BOTH_TYPES
@pytest.mark.parametrize("size", [0, 1, 7, 64, 1001])
def test_relu_keeps_what_is_positive_and_its_gradient(dtype, tolerance, size):
    rng = np.random.default_rng(size)
    x, dy = rng.standard_normal((2, size)).astype(dtype)
    x[::3] = 0
    y, dx = relu(x, dy)
    assert np.array_equal(y, np.maximum(x, 0))
    assert np.array_equal(dx, np.where(x > 0, dy, 0))


def test_relu_works_in_place():
    x, dy = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
    y, dx = relu(x, dy)
    loops.relu_forward(x, x)
    loops.relu_backward_input(dy, x, dy)
    assert np.array_equal(x, y)
    assert np.array_equal(dy, dx)


def test_gradient_of_relu_is_the_slope_of_its_output():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 2, 50) * rng.choice([-1, 1], 50)  # away from the kink
    dy = rng.standard_normal(50)
    oracles.check_gradient(lambda x: float(dy @ relu(x, dy)[0]), x, relu(x, dy)[1])


def test_relu_lets_nan_and_infinity_pass():
    y, _ = relu(np.array([np.nan, np.inf, -np.inf, -1], np.float32), np.zeros(4, np.float32))
    np.testing.assert_array_equal(y, [np.nan, np.inf, 0, 0])


def softmax(logits, labels):
    N, E = logits.shape
    losses, predicted, dlogits = np.full(N, np.nan), np.full(N, -1), np.full((N, E), np.nan, logits.dtype)
    loops.softmax_cross_entropy(logits, labels, losses, predicted, np.empty(N), dlogits)
    return losses, predicted, dlogits


@BOTH_TYPES
@pytest.mark.parametrize(("N", "E"), [(1, 1), (4, 10), (7, 3), (2, 1000)])
def test_softmax_and_cross_entropy_agree_with_scipy(dtype, tolerance, N, E):
    rng = np.random.default_rng(N)
    logits, labels = (3 * rng.standard_normal((N, E))).astype(dtype), rng.integers(0, E, N)
    losses, predicted, dlogits = softmax(logits, labels)
    expected_losses, expected_predicted, expected_dlogits = oracles.softmax_cross_entropy(
        logits.astype(np.float64), labels
    )
    np.testing.assert_allclose(losses, expected_losses, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dlogits, expected_dlogits, rtol=10 * tolerance, atol=tolerance)
    assert np.array_equal(predicted, expected_predicted)


def test_gradient_of_the_loss_is_its_slope():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 10)), rng.integers(0, 10, 6)
    gradient = softmax(logits, labels)[2]
    oracles.check_gradient(lambda z: float(softmax(z, labels)[0].sum()), logits, gradient)


@BOTH_TYPES
@pytest.mark.parametrize("size", [1e4, 3e37])
def test_softmax_is_stable_for_huge_logits(dtype, tolerance, size):
    logits = np.array([[size, -size, 0], [-size, -size, -size], [size, size, -size]], dtype)
    labels = np.array([1, 2, 0])
    losses, predicted, dlogits = softmax(logits, labels)
    np.testing.assert_allclose(losses, [2 * size, np.log(3), np.log(2)], rtol=1e-6)
    assert predicted.tolist() == [0, 0, 0]
    np.testing.assert_allclose(dlogits, [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3], [-0.5, 0.5, 0]], rtol=1e-6)


def test_the_prediction_of_equal_logits_is_the_first_class():
    assert softmax(np.zeros((2, 5), np.float32), np.array([3, 0]))[1].tolist() == [0, 0]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("label", [0, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_make_a_loss_that_is_not_finite(place, label, bad):
    logits = np.array([[1, 2, 3, 4], [1, 2, 3, 4]], np.float32)
    logits[1, place] = bad
    losses, _, dlogits = softmax(logits, np.array([label, label]))
    assert np.isfinite(losses).tolist() == [True, False]
    assert not np.isfinite(dlogits[1]).all()


def test_a_loss_has_the_same_bits_alone_as_in_a_batch():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((9, 10)).astype(np.float32), rng.integers(0, 10, 9)
    losses, _, dlogits = softmax(logits, labels)
    for n in range(9):
        loss, _, dlogit = softmax(logits[n : n + 1], labels[n : n + 1])
        assert np.array_equal(loss[0], losses[n])
        assert np.array_equal(dlogit[0], dlogits[n])


@BOTH_TYPES
@pytest.mark.parametrize(("T", "K"), [(1, 1), (8, 208), (5, 1001), (0, 3)])
def test_slots_are_summed_in_their_order(dtype, tolerance, T, K):
    slots = np.random.default_rng(0).standard_normal((T, K)).astype(dtype)
    total = np.full(K, np.nan, dtype)
    loops.sum_slots(slots, total)
    expected = np.zeros(K, dtype)
    for slot in slots:
        expected += slot
    assert np.array_equal(total, expected)  # the bits: the order of the sum is a contract


@BOTH_TYPES
@pytest.mark.parametrize("size", [0, 1, 5, 64, 1003])
def test_the_first_value_that_is_not_finite_is_found(dtype, tolerance, size):
    values = np.random.default_rng(0).standard_normal(size).astype(dtype)
    values[:1] = np.finfo(dtype).max
    assert loops.first_not_finite(values) == -1
    for place in {0, size // 2, size - 1} if size else ():
        for bad in (np.nan, np.inf, -np.inf):
            broken = values.copy()
            broken[place:] = bad
            assert loops.first_not_finite(broken) == place
