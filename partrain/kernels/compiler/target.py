"""The processor that Numba compiles for: this one, unless variables such as NUMBA_CPU_NAME name another."""

from __future__ import annotations

import functools
import platform

from partrain.kernels.compiler.deferred import DeferredModule
from partrain.kernels.compiler.host_record import read_host, write_host
from partrain.kernels.compiler.numba_settings import setting

_codegen = DeferredModule("numba.core.codegen")

# LLVM's names of processors with AVX-512 that compute the two halves of a vector one after the other. Full vectors gain
# nothing there.
# Source: AMD, "Software Optimization Guide for the AMD Zen4 Microarchitecture", 2023, on its floating-point unit.
COMPUTE_HALVES = ("znver4",)


@functools.cache
def _host() -> tuple[str, str]:
    """Return LLVM's name of this processor, and its features without those that Numba does not use."""
    return read_host() or _ask_llvm()


@functools.cache
def _ask_llvm() -> tuple[str, str]:
    return _codegen.ll.get_host_cpu_name(), _codegen.get_host_cpu_features()


def record_host() -> None:
    """Record what LLVM was asked, so that later processes need not ask it."""
    if _ask_llvm.cache_info().currsize:
        write_host(*_ask_llvm())


def target_name() -> str:
    """Return LLVM's name of the processor, such as "znver4"."""
    return setting("CPU_NAME") or _host()[0]


def target_features() -> str:
    """Return the instruction sets as LLVM writes them: "+avx,-avx512f,…"."""
    named = setting("CPU_FEATURES")
    if named is None and str(setting("CPU_NAME")).lower() == "generic":
        return ""
    return _host()[1] if named is None else named


def target_has(feature: str) -> bool:
    """Return whether kernels may use an instruction set, such as "avx"."""
    return f"+{feature}" in target_features().split(",")


def vector_width() -> int:
    """Return how many float32 the kernels' vectors have: 16 with AVX-512, 8 with AVX, else 4.

    Where it is 16, layers with few channels use vectors of 8 (kernels.lanes).
    """
    if target_has("avx512f") and target_name() not in COMPUTE_HALVES:
        return 16
    return 8 if target_has("avx") else 4


def num_vector_registers() -> int:
    """Return how many vectors the registers hold; without AVX, as many as on arm64."""
    return 16 if target_has("avx") and not target_has("avx512vl") else 32


def fuses_multiply_add() -> bool:
    """Return whether the processor multiplies and adds in one instruction; else each one calls the C library."""
    return platform.machine() not in ("x86_64", "AMD64") or target_has("fma")


def register_class() -> str | None:
    """Return LLVM's letter, in inline assembly, for a register that holds a vector; None if it is not known."""
    return {"x86_64": "v", "AMD64": "v", "aarch64": "w", "arm64": "w"}.get(platform.machine())
