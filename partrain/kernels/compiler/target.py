"""The processor that Numba compiles for: this one, unless variables such as NUMBA_CPU_NAME name another."""

from __future__ import annotations

import llvmlite.binding
import numba
from numba.core.codegen import get_host_cpu_features


def target_name() -> str:
    """Return LLVM's name of the processor, such as "znver4"."""
    return numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()


def target_features() -> str:
    """Return the instruction sets as LLVM writes them: "+avx,-avx512f,…"."""
    named = numba.config.CPU_FEATURES
    return get_host_cpu_features() if named is None else named


def target_has(feature: str) -> bool:
    """Return whether kernels may use an instruction set, such as "avx"."""
    return f"+{feature}" in target_features().split(",")
