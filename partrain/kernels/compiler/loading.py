"""Loads kernels: from the cache, or by compiling them first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numba

from partrain.kernels.compiler import cache
from partrain.kernels.compiler.flags import Kernel, is_compiled
from partrain.kernels.compiler.processes import claims_among_compilers


def load(
    kernels: Iterable[Kernel],
    float_type: str,
    *,
    announce: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> bool:
    """Make kernels ready to be called; compile those that the cache does not have.

    Parameters
    ----------
    kernels : declared by `@kernel`; a kernel that is loaded already, or named twice, costs nothing.
    float_type : "float32" or "float64".
    announce : called with a message before the first kernel is compiled.
    warn : called with a message if the cache cannot be used; then all kernels are compiled into a temporary directory.

    Returns
    -------
    Whether a kernel had to be compiled.

    Raises
    ------
    numba.core.errors.NumbaError
        A kernel does not compile.

    Side effects
    ------------
    Holds the lock of the cache directory, and writes there what it compiles. If the cache cannot be used, sets
    PARTRAIN_KERNEL_CACHE for child processes.
    """
    pending = _pending(kernels, float_type)
    if not pending:
        return False
    try:
        directory = cache.cache_directory()
        if _load_all_from_cache(pending, float_type, directory):
            return False
        _fill_cache(pending, float_type, directory, announce, warn)
    except Exception as error:
        if isinstance(error, numba.core.errors.NumbaError):
            raise  # a kernel that does not compile is a defect, not a broken cache
        directory = cache.temporary_directory()
        os.environ[cache.CACHE_VARIABLE] = str(directory)
        cause = str(error) or type(error).__name__
        warn(f"the kernel cache cannot be used ({cause}); compiling into {directory} for this run only")
        for k in pending:
            cache.compile_into_cache(k, float_type, directory)
    return True


def load_cached(kernels: Iterable[Kernel], float_type: str) -> None:
    """Load those of `kernels` that the cache has, and compile nothing; if the cache cannot be used, load none."""
    with contextlib.suppress(Exception):  # `load` will hit the same error and report it
        directory = cache.cache_directory()
        listed = cache.listed_kernels(_pending(kernels, float_type), float_type, directory)
        if listed:
            _load_all_from_cache(listed, float_type, directory)


def are_cached(kernels: Iterable[Kernel], float_type: str) -> bool:
    """Return whether the cache has all `kernels`, so that `load` compiles nothing."""
    pending = _pending(kernels, float_type)
    try:
        return cache.listed_kernels(pending, float_type, cache.cache_directory()) == pending
    except OSError:
        return False


def _pending(kernels: Iterable[Kernel], float_type: str) -> list[Kernel]:
    """Return each kernel once that is not loaded, in their order."""
    return [k for k in dict.fromkeys(kernels) if is_compiled(k) and not cache.is_loaded(k, float_type)]


def _load_all_from_cache(kernels: Sequence[Kernel], float_type: str, directory: Path) -> bool:
    """Load the kernels if the cache has all of them and is intact. Return whether that succeeded.

    Several processes may call this at once.
    """
    with cache.shared_lock(directory):
        if cache.listed_kernels(kernels, float_type, directory) != kernels or not cache.is_intact(directory):
            return False
        for k in kernels:
            cache.compile_into_cache(k, float_type, directory)
        return True


def _fill_cache(
    kernels: Sequence[Kernel],
    float_type: str,
    directory: Path,
    announce: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Load the kernels, and compile those that the cache does not have."""
    with cache.exclusive_lock(directory):
        cache.discard_damaged_files(directory, warn)
        listed = set(cache.listed_kernels(kernels, float_type, directory))
        missing = [k for k in kernels if k not in listed]
        if missing:  # else another process has compiled them meanwhile
            announce("compiling kernels, first run only")
        try:
            with claims_among_compilers(missing, float_type, directory) as claim:
                for place, k in enumerate(missing):
                    if claim(place):
                        cache.compile_into_cache(k, float_type, directory)
            for k in kernels:  # by now most are in the cache
                cache.compile_into_cache(k, float_type, directory)
        finally:
            compiled = [k for k in missing if cache.is_loaded(k, float_type)]
            cache.list_kernels(compiled, float_type, directory)
