from __future__ import annotations

import os

import numba
import numpy as np
import pytest

from partrain.kernels import dense, loops
from partrain.kernels.compiler.cache import CACHE_VARIABLE
from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from tests.kernels.compiler.tiny_kernel import (
    CACHED,
    FRESH,
    USE_TINY_KERNEL,
    kernel_folder,
    output_of,
    run,
    start,
)

# What only compiling imports.
OF_COMPILER = "object_code", "entry_point", "plain_array", "runtime_functions", "registers", "whole_kernel"
IMPORT_EVERYTHING = f"""
import importlib, pkgutil, sys, partrain.kernels
for module in pkgutil.walk_packages(partrain.kernels.__path__, "partrain.kernels."):
    if module.name.rpartition(".")[2] not in {OF_COMPILER}:
        importlib.import_module(module.name)
import partrain.network.execution, partrain.parallel.workers.worker, partrain.training.coordinator
assert not {{"numba", "llvmlite"}} & set(sys.modules)
"""


def test_importing_compiles_nothing_and_leaves_the_cache_alone(sources, tmp_path):
    code = "import partrain.kernels.compiler.target as target; target.read_host = lambda: ('generic', '')\n"
    assert run(code + IMPORT_EVERYTHING, sources=sources, folder=tmp_path) == ""
    assert list(tmp_path.rglob("*")) == [tmp_path / "tmp"]


def test_the_fork_server_compiles_nothing(tmp_path):
    code = (
        "import partrain.parallel.workers.preload; from partrain.kernels import loops; "
        "print(loops.dense_forward.loaded)"
    )
    compiles_nothing = start(
        code, sources=tmp_path, folder=tmp_path,
        PARTRAIN_PRELOAD_KERNELS="loops:float32", PARTRAIN_COORDINATOR=str(os.getpid()),
    )  # fmt: skip
    assert output_of(compiles_nothing) == "()\n"


def test_a_second_process_takes_the_kernels_from_the_cache(sources, good_folder):
    assert run(USE_TINY_KERNEL, sources=sources, folder=good_folder) == CACHED


def test_the_cache_can_be_put_elsewhere(sources, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    variable = {CACHE_VARIABLE: str(elsewhere)}
    assert run(USE_TINY_KERNEL, sources=sources, folder=tmp_path, **variable) == FRESH
    assert list(elsewhere.glob("**/*.kernel"))
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_for_its_owner_alone(good_folder):
    assert kernel_folder(good_folder).stat().st_mode & 0o077 == 0


def test_a_kernel_that_does_not_compile_is_an_error_and_no_fault_of_the_cache():
    @kernel("void({float}[::1])")
    def broken(values):
        values.no_such_method()

    warnings = []
    with pytest.raises(numba.core.errors.NumbaError):
        load([broken], "float32", warn=warnings.append)
    assert not warnings


@pytest.fixture(scope="session")
def loaded_fast():
    fast = (dense.dense_forward, loops.relu_forward, loops.gather_normalised)
    load(fast, "float32")
    return fast


def test_what_is_loaded_is_not_loaded_again(loaded_fast):
    said = []
    addresses = [dict(k.addresses) for k in loaded_fast]
    load(loaded_fast, "float32", announce=said.append, warn=said.append)
    assert [k.addresses for k in loaded_fast] == addresses
    assert not said


GOOD = np.zeros((3, 4), np.float32)
REFUSED = {
    "float64 in a kernel for float32": GOOD.astype(np.float64),
    "integers": GOOD.astype(np.int32),
    "columns before rows": np.asfortranarray(GOOD),
    "every second column": np.zeros((3, 8), np.float32)[:, ::2],
    "another number of dimensions": GOOD.ravel(),
    "a list": GOOD.tolist(),
    "a float": 1.0,
}


@pytest.mark.parametrize("x_ND", REFUSED.values(), ids=REFUSED)
def test_an_argument_of_another_type_or_layout_is_refused(loaded_fast, x_ND):
    w_ED, b_E, y_NE = np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros((3, 2), np.float32)
    dense.dense_forward(GOOD, w_ED, b_E, True, y_NE)
    with pytest.raises(TypeError):
        dense.dense_forward(x_ND, w_ED, b_E, True, y_NE)


def test_a_read_only_target_is_refused(loaded_fast):
    y = np.zeros(4, np.float32)
    y.flags.writeable = False
    with pytest.raises(TypeError):
        loops.relu_forward(np.zeros(4, np.float32), y)


def test_every_kernel_is_closed_once_it_is_loaded(loaded_fast):
    for k in loaded_fast:
        with pytest.raises(TypeError):
            k(*["not an array"] * k.py_func.__code__.co_argcount)
