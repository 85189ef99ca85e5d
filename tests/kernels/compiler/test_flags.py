from __future__ import annotations

import importlib
import pkgutil

import numba
import numpy as np
import pytest

import partrain.kernels
from partrain.kernels.compiler.flags import Inlined, Kernel, kernel


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


def test_no_kernel_lets_the_compiler_reorder_or_fuse_operations():
    modules = pkgutil.walk_packages(partrain.kernels.__path__, "partrain.kernels.")
    found = [value for module in modules for value in vars(importlib.import_module(module.name)).values()]
    options = {str(value): value.dispatcher.targetoptions for value in found if isinstance(value, Kernel | Inlined)}
    assert len(options) > 50
    assert not [name for name, option in options.items() if option.get("fastmath")]
