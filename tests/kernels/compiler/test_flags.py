from __future__ import annotations

import numba
import numpy as np
import pytest

from partrain.kernels.compiler.flags import kernel


@kernel("void({float}[::1])")
def add_one(values):
    for k in range(values.size):
        values[k] += 1


@numba.njit
def add_two(values):
    add_one(values)
    add_one(values)


def test_calling_a_kernel_that_was_not_loaded_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match=r"test_flags\.add_one was called before it was loaded"):
        add_one(np.zeros(3))


def test_a_kernel_may_call_one_that_was_not_loaded():
    values = np.zeros(3)
    add_two(values)
    assert values.tolist() == [2, 2, 2]
