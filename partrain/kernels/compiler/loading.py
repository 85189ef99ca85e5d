"""Loads kernels: from the cache, or by compiling them first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from partrain.kernels.compiler import cache
from partrain.kernels.compiler.cache import DamagedEntry, KernelCache
from partrain.kernels.compiler.deferred import DeferredModule
from partrain.kernels.compiler.flags import Kernel, is_compiled
from partrain.kernels.compiler.processes import compile_with_helpers
from partrain.kernels.compiler.target import record_host
from partrain.system.signals import interruption_behind
from partrain.system.trusted_directory import TrustedDirectory
from partrain.system.work_progress import WorkProgress

_errors = DeferredModule("numba.core.errors")


def load(
    kernels: Iterable[Kernel],
    float_type: str,
    *,
    announce: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] | None = None,
    has_bar: bool = False,
) -> bool:
    """Make kernels ready to be called; compile those that the cache does not have.

    Parameters
    ----------
    kernels : declared by `@kernel`; a kernel that is loaded already, or named twice, costs nothing.
    float_type : "float32" or "float64".
    announce : called with a message before the first kernel is compiled, and then with the progress.
    warn : called with a message if the cache cannot be used; then all kernels are compiled into a temporary directory.
        None: a later call says it.
    has_bar : whether to show the progress of compiling as a bar on stderr.

    Returns
    -------
    Whether a kernel had to be compiled.

    Raises
    ------
    numba.core.errors.NumbaError
        A kernel does not compile.

    Side effects
    ------------
    Writes each kernel into the cache as soon as it is compiled, and holds the lock of the cache meanwhile. If the cache
    cannot be used, sets PARTRAIN_KERNEL_CACHE for child processes.
    """
    pending = _pending(kernels, float_type)
    if not pending:
        return False
    reports = _Reports(announce, warn, has_bar)
    with contextlib.ExitStack() as stack:
        source: KernelCache | None = None
        try:
            source = stack.enter_context(cache.open_cache())
            record_host()
            missing = _load_from_cache(pending, float_type, source, reports)
            if not missing:
                return False
            with source.locked(lambda: announce("another process is compiling the kernels; waiting for it")):
                missing = _load_from_cache(missing, float_type, source, reports)  # others may have compiled meanwhile
                _compile(missing, float_type, source, reports)
        except Exception as error:
            # A kernel that does not compile is a defect, not a broken cache.
            if interruption_behind(error) is not None or isinstance(error, _errors.NumbaError):
                raise
            _load_without_cache(pending, float_type, source, str(error) or type(error).__name__, reports)
    return True


def load_cached(kernels: Iterable[Kernel], float_type: str) -> None:
    """Load those of `kernels` that the cache has, and compile nothing; if the cache cannot be used, load none."""
    with contextlib.suppress(OSError, DamagedEntry), cache.open_cache() as source:  # `load` will report what is wrong
        for k in _pending(kernels, float_type):
            source.load(k, float_type)


def are_cached(kernels: Iterable[Kernel], float_type: str) -> bool:
    """Return whether the cache has all `kernels`, so that `load` compiles nothing."""
    try:
        with cache.open_cache() as source:
            return all(source.has(k, float_type) for k in _pending(kernels, float_type))
    except OSError:
        return False


def _pending(kernels: Iterable[Kernel], float_type: str) -> list[Kernel]:
    """Return each kernel once that is not loaded, in their order."""
    return [k for k in dict.fromkeys(kernels) if is_compiled(k) and not cache.is_loaded(k, float_type)]


@dataclass(frozen=True)
class _Reports:
    """The messages of `load`: see its parameters."""

    announce: Callable[[str], None]
    warn: Callable[[str], None] | None
    has_bar: bool


def _load_from_cache(
    kernels: Sequence[Kernel], float_type: str, source: KernelCache, reports: _Reports
) -> list[Kernel]:
    """Load the kernels that the cache has; return the others. Warn if files are damaged."""
    missing, num_damaged = [], 0
    for k in kernels:
        try:
            is_there = source.load(k, float_type)
        except DamagedEntry:
            is_there, num_damaged = False, num_damaged + 1
        if not is_there:
            missing.append(k)
    if num_damaged and reports.warn is not None:
        reports.warn(
            f"the kernel cache {source.directory.path} is damaged, perhaps by a crash; "
            f"{num_damaged} of its kernels are compiled again"
        )
    return missing


def _load_without_cache(
    kernels: Sequence[Kernel],
    float_type: str,
    source: KernelCache | None,
    cause: str,
    reports: _Reports,
) -> None:
    """Load kernels by way of a temporary directory, where child processes find them."""
    directory = cache.temporary_directory()
    if reports.warn is not None:
        os.environ[cache.CACHE_VARIABLE] = str(directory)
        reports.warn(f"the kernel cache cannot be used ({cause}); compiling into {directory} for this run only")
    # Not `TrustedDirectory.open`: this process has created the directory, under a name that nobody could foresee.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    with KernelCache(TrustedDirectory(directory, descriptor), is_temporary=True) as target:
        missing = [k for k in kernels if source is None or not target.copy_from(source, k, float_type)]
        for k in kernels:
            if k not in missing and not target.load(k, float_type):
                missing.append(k)
        _compile(missing, float_type, target, reports)


def _compile(kernels: Sequence[Kernel], float_type: str, target: KernelCache, reports: _Reports) -> None:
    """Compile kernels into a cache, in this process and its helpers, and load all of them."""
    if not kernels:
        return
    reports.announce("compiling kernels, first run only")
    with WorkProgress("compiling", "kernels", len(kernels), reports.announce, has_bar=reports.has_bar) as display:

        def show() -> None:
            display.show(sum(target.has(k, float_type) for k in kernels))

        with compile_with_helpers(kernels, float_type, target.directory, show) as own_share:
            for k in own_share:
                target.compile(k, float_type)
                show()
        for k in kernels:  # what the helpers have compiled
            with contextlib.suppress(DamagedEntry):
                target.load(k, float_type)
            target.compile(k, float_type)
