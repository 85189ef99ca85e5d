from __future__ import annotations

import os
import platform
import subprocess
import sys

import llvmlite.binding
import numba
import pytest

from partrain.errors import ConfigError
from partrain.kernels.compiler.flags import require_compiler
from partrain.kernels.compiler.target import (
    fuses_multiply_add,
    num_vector_registers,
    target_features,
    target_has,
    target_name,
    vector_width,
)
from tests.program import ROOT


def test_target_is_this_processor():
    assert target_name() == llvmlite.binding.get_host_cpu_name()
    assert target_features() == llvmlite.binding.get_host_cpu_features().flatten()


@pytest.mark.parametrize(
    ("name", "features", "expected"), [("generic", "", False), ("x86-64-v3", "+avx,-avx2", True), (None, "-avx", False)]
)
def test_target_is_the_one_that_the_user_names(monkeypatch, name, features, expected):
    monkeypatch.setattr(numba.config, "CPU_NAME", name)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert target_name() == (name or llvmlite.binding.get_host_cpu_name())
    assert target_has("avx") == expected
    assert not target_has("avx2")


@pytest.mark.parametrize(
    ("name", "features", "width", "num_registers"),
    [
        ("generic", "", 4, 32),
        ("neoverse-n1", "+neon,+fp-armv8", 4, 32),
        ("haswell", "+avx,+avx2,+fma", 8, 16),
        ("znver4", "+avx,+avx2,+fma,+avx512f,+avx512vl", 8, 32),
        ("sapphirerapids", "+avx,+avx2,+fma,+avx512f,+avx512vl", 16, 32),
    ],
)
def test_width_and_number_of_vectors_are_those_of_the_target(monkeypatch, name, features, width, num_registers):
    monkeypatch.setattr(numba.config, "CPU_NAME", name)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert (vector_width(), num_vector_registers()) == (width, num_registers)


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [("x86_64", "", False), ("x86_64", "+avx", False), ("x86_64", "+avx2,+fma", True), ("aarch64", "+neon", True)],
)
def test_arm64_and_processors_with_fma_fuse_multiply_adds(monkeypatch, machine, features, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert fuses_multiply_add() == expected


def lanes_with(**variables):
    program = "from partrain.kernels.simd.vectors import LANES; print(LANES)"
    env = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return int(subprocess.run([sys.executable, "-c", program], env=env, stdout=-1, check=True, timeout=60).stdout)


def test_vectors_are_as_wide_as_those_of_the_target():
    assert lanes_with(NUMBA_CPU_NAME="generic") == 4
    assert lanes_with(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx,+avx2,+fma") == 8


def test_missing_compiler_is_a_message(monkeypatch):
    require_compiler()
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(ConfigError, match="unset it"):
        require_compiler()
