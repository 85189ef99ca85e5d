from __future__ import annotations

import importlib
import pkgutil

import pytest

import partrain.kernels
from partrain.kernels import dense, loops
from partrain.kernels.compiler import options
from partrain.kernels.compiler.kernel_set import kernel_set

SETS = pytest.mark.parametrize("name", ["fast", "loops"])


def names(kernels):
    return {f"{k.py_func.__module__.rpartition('.')[2]}.{k.py_func.__name__}" for k in kernels}


def kernels_of(module):
    """Return the kernels that a file of partrain.kernels declares."""
    full_name = f"partrain.kernels.{module}"
    values = vars(importlib.import_module(full_name)).values()
    return [v for v in values if getattr(v, "py_func", None) and v.py_func.__module__ == full_name and is_kernel(v)]


def is_kernel(function):
    return function in options._signatures


def everything(name):
    return kernel_set(name).for_training(augments=True, drops=True)


@SETS
def test_a_set_is_found_by_its_name(name):
    assert kernel_set(name).name == name


def test_only_the_two_sets_of_the_configuration_exist():
    with pytest.raises(KeyError):
        kernel_set("slow")


@SETS
def test_a_set_names_each_kernel_once(name):
    kernels = everything(name)
    assert all(is_kernel(k) for k in kernels)
    assert len(set(kernels)) == len(kernels)


@SETS
def test_what_turns_factors_into_a_gradient_is_one_of_the_set(name):
    assert kernel_set(name).dense_backward_weights in kernel_set(name).all


def test_the_loops_are_all_there_are():
    # Norms, dropout and mailboxes are alike for both sets.
    common = names(kernels_of("norms")) | names(kernels_of("dropout")) | names(kernels_of("ipc.mailbox"))
    augment = names([kernel_set("loops").augment])
    assert names(everything("loops")) == names(kernels_of("loops")) | common | augment
    assert kernel_set("loops").dense_backward_weights is loops.dense_backward_weights


def test_the_fast_set_has_every_kernel_of_the_files_that_are_written_for_it():
    # `strokes` draws the synthetic digits, `peak` measures the processor, and other kernels call into `philox`.
    others = {"loops", "strokes", "peak", "philox"}
    found = pkgutil.walk_packages(partrain.kernels.__path__, "partrain.kernels.")
    modules = {m.name.removeprefix("partrain.kernels.") for m in found if not m.ispkg} - others
    expected = set().union(*(names(kernels_of(module)) for module in modules)) - names([kernel_set("loops").augment])
    assert {k for k in names(everything("fast")) if not k.startswith("loops.")} == expected
    assert kernel_set("fast").dense_backward_weights is dense.dense_backward_weights


def test_the_fast_set_has_kernels_of_its_own_for_the_costly_operations():
    operations = {name.rpartition(".")[2] for name in names(kernel_set("fast").all) if name.startswith("loops.")}
    assert not [name for name in operations if name.startswith(("conv2d", "dense", "max_pool", "gather"))]


@SETS
def test_what_few_trainings_use_is_loaded_for_those_alone(name):
    kernels = kernel_set(name)
    plain = kernels.for_training(augments=False, drops=False)
    assert plain == kernels.all
    assert set(kernels.for_training(augments=True, drops=False)) - set(plain) == {kernels.augment}
    more = names(set(kernels.for_training(augments=False, drops=True)) - set(plain))
    assert more == names(kernels_of("dropout"))


@pytest.mark.parametrize(
    "kernel",
    [
        loops.relu_forward,
        loops.relu_backward_input,
        loops.softmax_cross_entropy,
        loops.sum_slots,
        loops.first_not_finite,
        loops.adam_update,
    ],
    ids=lambda k: k.py_func.__name__,
)
def test_what_is_used_whichever_set_is_chosen_is_loaded_with_both(kernel):
    assert kernel in kernel_set("fast").all
    assert kernel in kernel_set("loops").all
