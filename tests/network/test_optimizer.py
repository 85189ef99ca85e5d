from __future__ import annotations

import math

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.kernels import loops_update
from partrain.kernels.compiler.loading import load
from partrain.network.learning_rate import learning_rate
from tests.optimizers import optimizer_of

CONSTANT = Schedule()


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load([loops_update.adam_update], "float32")
    load([loops_update.adam_update], "float64")


def steps_by_the_paper(parameters, gradients, rates, optimizer):
    """Adam (algorithm 1) with decoupled weight decay, line by line; yields the parameters after each step."""
    theta, m, v = parameters.astype(np.float64), 0.0, 0.0
    for t, (g, alpha) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = optimizer.beta1 * m + (1 - optimizer.beta1) * g
        v = optimizer.beta2 * v + (1 - optimizer.beta2) * g**2
        corrected_m = m / (1 - optimizer.beta1**t)
        corrected_v = v / (1 - optimizer.beta2**t)
        theta = (
            theta
            - alpha * corrected_m / (np.sqrt(corrected_v) + optimizer.eps)
            - alpha * optimizer.weight_decay * theta
        )
        yield theta


def drawn(num_steps, size=57, dtype="float64"):
    """Draw parameters, and for each step a gradient, of very different sizes."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-6, 3, size)
    gradients = rng.standard_normal((num_steps, size)) * sizes
    return rng.standard_normal(size).astype(dtype), gradients.astype(dtype)


def trained(parameters, gradients, optimizer, schedule=CONSTANT, *, num_examples=1):
    """Make all steps on a copy; return what `Adam` was left with."""
    vector = parameters.copy()
    adam = optimizer_of(vector, optimizer, schedule)
    for step, gradient in enumerate(gradients, start=1):
        adam.update(gradient * num_examples, num_examples, step)
    return vector, adam


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (Optimizer(), CONSTANT),
        (Optimizer(lr=0.01, beta1=0.95, beta2=0.99), CONSTANT),
        (Optimizer(lr=0.003, weight_decay=0.1), Schedule(name="cosine", warmup_steps=7, decay_steps=40)),
        (Optimizer(lr=0.1, beta1=0.0, beta2=0.0, eps=1e-3), Schedule(name="step", every_steps=11, factor=0.5)),
    ],
)
def test_fifty_steps_are_those_of_the_paper(optimizer, schedule):
    parameters, gradients = drawn(50)
    rates = [learning_rate(step, optimizer, schedule) for step in range(1, 51)]
    vector = parameters.copy()
    adam = optimizer_of(vector, optimizer, schedule)
    expected = steps_by_the_paper(parameters, gradients, rates, optimizer)
    for step, theta in enumerate(expected, start=1):
        adam.update(8 * gradients[step - 1], 8, step)
        np.testing.assert_allclose(vector, theta, rtol=1e-12, atol=1e-13)


def test_float32_follows_the_paper_as_far_as_its_digits_go():
    parameters, gradients = drawn(50, dtype="float32")
    optimizer = Optimizer(lr=0.01, weight_decay=0.1)
    vector, _ = trained(parameters, gradients, optimizer)
    *_, expected = steps_by_the_paper(parameters, gradients.astype(np.float64), [0.01] * 50, optimizer)
    # Each step rounds the parameter, by half a unit in its last place; the step's own error is smaller.
    np.testing.assert_allclose(vector, expected, rtol=0, atol=50 * 2.0**-24 * np.abs(parameters).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize("optimizer", [Optimizer(lr=0.01), Optimizer(lr=0.01, beta1=0.95, beta2=0.99)])
def test_the_first_step_has_the_size_of_the_learning_rate_whatever_the_gradient(dtype, tolerance, optimizer):
    gradient = np.array([1e-3, -1e-3, 1, -1, 1e3, 7e3], dtype)
    vector, _ = trained(np.zeros(6, dtype), [gradient], optimizer)
    expected = -0.01 * gradient.astype(np.float64) / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(vector, expected, rtol=tolerance)


def test_the_same_gradients_make_the_same_bits():
    parameters, gradients = drawn(20, dtype="float32")
    first, one = trained(parameters, gradients, Optimizer(weight_decay=0.01))
    second, two = trained(parameters, gradients, Optimizer(weight_decay=0.01))
    assert np.array_equal(first, second)
    assert np.array_equal(one.first_moment, two.first_moment)
    assert np.array_equal(one.second_moment, two.second_moment)


def test_a_parameter_has_the_same_bits_wherever_it_stands_in_the_vector():
    parameters, gradients = drawn(5, size=203, dtype="float32")
    whole, _ = trained(parameters, gradients, Optimizer())
    for first, last in ((0, 1), (1, 202), (64, 130), (202, 203)):
        part, _ = trained(parameters[first:last], gradients[:, first:last].copy(), Optimizer())
        assert np.array_equal(part, whole[first:last])


def test_going_on_from_saved_moments_makes_the_bits_of_one_go():
    parameters, gradients = drawn(20, dtype="float32")
    optimizer, schedule = Optimizer(weight_decay=0.01), Schedule(name="cosine", warmup_steps=3, decay_steps=15)
    expected, _ = trained(parameters, gradients, optimizer, schedule)

    vector, stopped = trained(parameters, gradients[:12], optimizer, schedule)
    resumed = optimizer_of(vector, optimizer, schedule)
    resumed.first_moment[:] = stopped.first_moment
    resumed.second_moment[:] = stopped.second_moment
    for step in range(13, 21):
        resumed.update(gradients[step - 1], 1, step)
    assert np.array_equal(vector, expected)


def test_the_moments_are_kept_from_step_to_step():
    _, gradients = drawn(3)
    _, adam = trained(np.zeros(57), gradients, Optimizer())
    g1, g2, g3 = gradients
    np.testing.assert_allclose(adam.first_moment, 0.1 * (0.81 * g1 + 0.9 * g2 + g3), rtol=1e-9)
    np.testing.assert_allclose(adam.second_moment, 0.001 * (0.999**2 * g1**2 + 0.999 * g2**2 + g3**2), rtol=1e-9)


def test_the_sum_of_gradients_is_divided_by_the_number_of_examples():
    parameters, gradients = drawn(5)
    expected, _ = trained(parameters, gradients, Optimizer())
    vector, _ = trained(parameters, gradients, Optimizer(), num_examples=64)
    np.testing.assert_array_equal(vector, expected)  # 64 is a power of two


def test_the_gradient_is_not_written():
    parameters, gradients = drawn(1)
    before = gradients.copy()
    trained(parameters, gradients, Optimizer())
    assert np.array_equal(gradients, before)


def test_weight_decay_pulls_on_parameters_without_a_gradient():
    optimizer = Optimizer(lr=0.5, weight_decay=0.1)
    vector, _ = trained(np.array([2.0, -4.0]), np.zeros((3, 2)), optimizer)
    np.testing.assert_allclose(vector, np.array([2.0, -4.0]) * 0.95**3, rtol=1e-14)


def test_without_gradient_and_decay_nothing_moves():
    parameters, gradients = drawn(4)
    vector, _ = trained(parameters, 0 * gradients, Optimizer())
    assert np.array_equal(vector, parameters)


def test_adam_finds_the_minimum_of_a_quadratic():
    # f(w) = sum of curvature · (w - minimum)² / 2, with curvatures a thousand times apart.
    curvature = np.array([0.1, 1, 10, 100], np.float32)
    minimum = np.array([1, -2, 0.5, 3], np.float32)
    vector = np.zeros(4, np.float32)
    schedule = Schedule(name="cosine", decay_steps=2000)
    adam = optimizer_of(vector, Optimizer(lr=0.05), schedule)
    for step in range(1, 2001):
        adam.update(curvature * (vector - minimum), 1, step)
    np.testing.assert_allclose(vector, minimum, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_seen_in_the_parameter(bad):
    parameters, gradients = drawn(1, dtype="float32")
    gradients[0, 3] = bad
    vector, _ = trained(parameters, gradients, Optimizer())
    assert np.flatnonzero(~np.isfinite(vector)).tolist() == [3]


def rates(schedule, steps, lr=0.8):
    return [learning_rate(step, Optimizer(lr=lr), schedule) for step in steps]


def test_a_constant_rate_stays():
    assert rates(Schedule(), [1, 2, 10**9]) == [0.8] * 3


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_the_rate_rises_linearly_over_the_warm_up(name):
    schedule = Schedule(name=name, warmup_steps=4, decay_steps=100)
    assert rates(schedule, [1, 2, 3, 4, 5]) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_the_step_schedule_falls_after_every_so_many_steps():
    schedule = Schedule(name="step", every_steps=3, factor=0.5)
    assert rates(schedule, range(1, 9)) == pytest.approx([0.8] * 3 + [0.4] * 3 + [0.2] * 2)


def test_the_cosine_falls_from_the_full_rate_to_the_final_one():
    schedule = Schedule(name="cosine", decay_steps=10, final_lr=0.2)
    expected = [0.2 + 0.3 * (1 + math.cos(math.pi * k / 10)) for k in range(11)]
    assert rates(schedule, range(1, 12)) == pytest.approx(expected)
    assert rates(schedule, [1]) == [0.8]
    assert rates(schedule, [6]) == pytest.approx([0.5])


def test_the_cosine_begins_after_the_warm_up_and_ends_at_decay_steps():
    schedule = Schedule(name="cosine", warmup_steps=4, decay_steps=12)
    values = rates(schedule, range(1, 14))
    assert values[3] == values[4] == 0.8
    assert values[8] == pytest.approx(0.4)
    assert values[4:] == sorted(values[4:], reverse=True)
    assert values[11] == pytest.approx(0.4 * (1 + math.cos(math.pi * 7 / 8)))
    assert values[12] == 0


def test_beyond_decay_steps_the_rate_stays_at_the_final_one():
    schedule = Schedule(name="cosine", warmup_steps=2, decay_steps=10, final_lr=0.05)
    assert rates(schedule, [11, 12, 10**9]) == [0.05] * 3


@pytest.mark.parametrize("decay_steps", [1, 5, 8])
def test_a_warm_up_that_is_longer_than_the_decay_ends_at_the_final_rate(decay_steps):
    schedule = Schedule(name="cosine", warmup_steps=8, decay_steps=decay_steps, final_lr=0.1)
    assert rates(schedule, range(1, 9)) == pytest.approx([0.1 * k for k in range(1, 9)])
    assert rates(schedule, [9, 10]) == [0.1, 0.1]


def test_the_rate_of_a_step_is_that_of_the_schedule():
    schedule = Schedule(name="cosine", warmup_steps=2, decay_steps=10)
    adam = optimizer_of(np.zeros(3), Optimizer(lr=0.8), schedule)
    assert [adam.learning_rate(step) for step in range(1, 12)] == rates(schedule, range(1, 12))
