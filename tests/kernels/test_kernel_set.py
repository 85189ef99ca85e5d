from __future__ import annotations

from dataclasses import fields

import pytest

from partrain.kernels.kernel_set import KernelSet, kernel_set


@pytest.mark.parametrize("name", ["fast", "loops"])
def test_a_set_goes_through_all_its_kernels(name):
    kernels = kernel_set(name)
    assert list(kernels) == [getattr(kernels, field.name) for field in fields(KernelSet)]


def test_only_the_two_sets_of_the_configuration_exist():
    with pytest.raises(KeyError):
        kernel_set("slow")


def test_the_loops_are_the_default_of_each_operation():
    assert kernel_set("loops") == KernelSet()


def test_the_fast_set_has_kernels_of_its_own_for_the_costly_operations():
    fast, loops = kernel_set("fast"), kernel_set("loops")
    for operation in ("conv2d", "dense"):
        for direction in ("forward", "backward_input", "backward_weights"):
            name = f"{operation}_{direction}"
            assert getattr(fast, name) is not getattr(loops, name)


@pytest.mark.parametrize("name", ["fast", "loops"])
def test_kernels_are_called_by_their_operation(name):
    kernels = kernel_set(name)
    for field in fields(KernelSet):
        kernel = getattr(kernels, field.name)
        assert getattr(kernel, "py_func", kernel).__name__ == field.name
