from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels import dense, layout, loops
from partrain.kernels.call_list import CallList, call_now
from partrain.kernels.compiler.loading import load

rng = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    load((*CallList.KERNELS, layout.gather_normalised, layout.copy_numbers, dense.dense_forward,
          loops.relu_backward_input), "float32")  # fmt: skip


def numbers(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def two_layers(call, x, h, y, parameters):
    call(dense.dense_forward, x, parameters[0], parameters[1], True, h)
    call(dense.dense_forward, h, parameters[2], parameters[3], False, y)


def test_a_list_computes_what_its_calls_compute_with_the_values_of_the_moment():
    x, parameters = numbers(5, 7), (numbers(9, 7), numbers(9), numbers(3, 9), numbers(3))
    expected, actual, h = numbers(5, 3), numbers(5, 3), numbers(5, 9)
    calls = CallList(())
    two_layers(calls.add, x, h, actual, parameters)
    calls.point_to(())
    for _ in range(2):
        x[:], parameters[0][:] = numbers(5, 7), numbers(9, 7)
        two_layers(call_now, x, h, expected, parameters)
        calls.run()
        assert np.array_equal(actual, expected)


def test_other_arrays_take_the_place_of_the_variables_wherever_they_are_used():
    first, second, h = numbers(5, 7), numbers(5, 7), numbers(5, 9)
    w, b = numbers(9, 7), numbers(9)
    copies = np.zeros((2, 35), np.float32)
    calls = CallList((first, h))
    calls.add(layout.copy_numbers, first.reshape(-1), copies[0])
    calls.add(dense.dense_forward, first, w, b, False, h)
    calls.add(layout.copy_numbers, first.reshape(-1), copies[1])
    other_h, unused = numbers(5, 9), h.copy()
    calls.point_to((second, other_h))
    calls.run()
    expected = numbers(5, 9)
    dense.dense_forward(second, w, b, False, expected)
    assert np.array_equal(other_h, expected)
    assert np.array_equal(h, unused)
    assert np.array_equal(copies, [second.reshape(-1)] * 2)


def test_arrays_take_turns_in_the_place_of_a_variable():
    first, second, y = numbers(6), numbers(6), numbers(6)
    calls = CallList((first,))
    calls.add(layout.copy_numbers, first, y)
    for x in (first, first, second, first, second, second):
        calls.point_to((x,))
        calls.run()
        assert np.array_equal(y, x)


def test_arrays_within_the_movable_one_move_with_it_and_back():
    first, second = numbers(20), numbers(20)
    fixed, of_fixed, copies = numbers(3), np.zeros(3, np.float32), np.zeros((2, 4), np.float32)
    calls = CallList((), first)
    calls.add(layout.copy_numbers, first[:4], copies[0])
    calls.add(layout.copy_numbers, fixed, of_fixed)
    calls.add(layout.copy_numbers, first[16:], copies[1])
    calls.point_to(())
    for movable in (first, second, second, first):
        calls.move(movable)
        calls.run()
        assert np.array_equal(copies, [movable[:4], movable[16:]])
        assert np.array_equal(of_fixed, fixed)


def test_a_part_of_a_list_runs_alone():
    x, y, z = numbers(6), numbers(6), numbers(6)
    calls = CallList(())
    calls.add(layout.copy_numbers, x, y)
    middle, before = len(calls), y.copy()
    calls.add(layout.copy_numbers, x, z)
    calls.point_to(())
    calls.run(middle)
    assert np.array_equal(z, x)
    assert np.array_equal(y, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_signature_is_chosen_by_the_arguments(dtype):
    images, y = rng.integers(0, 256, (4, 2, 3, 5)).astype(dtype), np.zeros((2, 5, 7, 2), np.float32)
    mean, inverse_std = numbers(2), numbers(2)
    calls = CallList(())
    calls.add(layout.gather_normalised, images, np.array([3, 1]), mean, inverse_std, (1, 1), y)
    calls.point_to(())
    calls.run()
    normalised = (images[[3, 1]] - mean[:, None, None]) * inverse_std[:, None, None]
    np.testing.assert_allclose(y[:, 1:-1, 1:-1], normalised.transpose(0, 2, 3, 1), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        (numbers(4).astype(np.float64), numbers(4), numbers(4)),
        (numbers(4, 4), numbers(4), numbers(4)),
        (numbers(8)[::2], numbers(4), numbers(4)),
        (3, numbers(4), numbers(4)),
    ],
    ids=["another dtype", "another number of dimensions", "not contiguous", "not an array"],
)
def test_arguments_that_the_kernel_does_not_take_are_an_error(wrong):
    with pytest.raises(TypeError, match="wrong arguments"):
        CallList(()).add(loops.relu_backward_input, *wrong)


def test_an_array_of_another_shape_does_not_take_the_place_of_a_variable():
    x = numbers(4)
    calls = CallList((x,))
    calls.add(layout.copy_numbers, x, numbers(4))
    with pytest.raises(AssertionError):
        calls.point_to((numbers(5),))
