"""The only home of Numba's flags, of the kernels' signatures, and of their cache.

A kernel is declared with `@kernel(signature)`. That compiles nothing: `load` compiles what is asked for, or
takes it from the cache, and then closes the kernel, so that an argument of another type or layout is an error
and not one more specialisation with other bits.

The cache is Numba's, in a folder of the user's own that is named by a digest of every kernel source, the
versions, and the processor: Numba's own key would miss an edit in a file that a kernel calls into.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba

from partrain.kernels.compiler.processes import claims_among_compilers
from partrain.system.cache_directories import cache_home

# Sums may be reordered and contracted to fused multiply-adds, at compile time and so in the same way in every
# process. "nnan" and "ninf" stay off: a value that is not finite must still be seen.
FAST_MATH = {"reassoc", "contract", "nsz"}

# Set for the fork server, so that it takes the kernels from where the coordinator put them.
CACHE_VARIABLE = "PARTRAIN_KERNEL_CACHE"

_signatures: dict[Any, tuple[str, ...]] = {}


def kernel(*signatures: str, fast_math: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Declare a compiled kernel.

    Parameters
    ----------
    signatures : Numba signatures. `{float}` stands for the floating-point type that `load` is asked for.
    fast_math : allow the compiler to reorder sums (see FAST_MATH).
    """

    def declare(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=FAST_MATH if fast_math else False)(function)
        _signatures[dispatcher] = signatures
        return dispatcher

    return declare


# A function that kernels call: compiled into each of them, with the caller's types. The wrappers that only Python and
# C would call are left out: they are a third of the time that compiling takes.
inlined = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


def load(
    kernels: Iterable[Any],
    float_type: str,
    *,
    announce: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> bool:
    """Make `kernels` ready to be called, from the cache where it has them.

    Parameters
    ----------
    kernels : what `@kernel` returned.
    float_type : "float32" or "float64".
    announce : called with a message before the first kernel is compiled.
    warn : called with a message if the cache cannot be used; then everything is compiled into a temporary folder.

    Returns
    -------
    Whether the cache did not have them all.

    Side effects
    ------------
    Holds a lock in the cache folder, and writes there what it compiles.
    """
    pending = [k for k in kernels if hasattr(k, "compile") and not _is_loaded(k, float_type)]
    if not pending:
        return False
    try:
        folder = _cache_folder()
        if _load_cached(pending, float_type, folder):
            return False
        _fill_cache(pending, float_type, folder, announce, warn)
    except Exception as error:
        if isinstance(error, numba.core.errors.NumbaError):
            raise  # a kernel that does not compile is a defect, not a broken cache
        folder = _temporary_folder()
        os.environ[CACHE_VARIABLE] = str(folder)
        warn(f"the kernel cache cannot be used ({_cause(error)}); compiling into {folder} for this run only")
        for k in pending:
            compile_into_cache(k, float_type, folder)
    return True


def are_cached(kernels: Iterable[Any], float_type: str) -> bool:
    """Return whether the cache has all `kernels`, so that `load` will compile nothing."""
    try:
        return _are_noted(kernels, float_type, _cache_folder())
    except OSError:
        return False


def _load_cached(kernels: Iterable[Any], float_type: str, folder: Path) -> bool:
    """Load the kernels if the cache has all of them and is whole; return whether. Processes may do so at once."""
    with _locked(folder, fcntl.LOCK_SH):
        if not (_are_noted(kernels, float_type, folder) and _notes(folder)["files"] == _checksums(folder)):
            return False
        for k in kernels:
            compile_into_cache(k, float_type, folder)
        return True


def _fill_cache(
    kernels: Iterable[Any],
    float_type: str,
    folder: Path,
    announce: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Load the kernels, and compile those that the cache does not have."""
    # Numba numbers the data files of one kernel's signatures; two processes that each add another signature
    # at the same time could be given one number.
    with _locked(folder, fcntl.LOCK_EX):
        _discard_damaged_files(folder, warn)
        missing = [k for k in kernels if not _are_noted([k], float_type, folder)]
        if missing:  # else another process was here first
            announce("compiling kernels, first run only")
        try:
            with claims_among_compilers(missing, float_type, folder) as claim:
                for place, k in enumerate(missing):
                    if claim(place):
                        compile_into_cache(k, float_type, folder)
            for k in kernels:  # by now most are there
                compile_into_cache(k, float_type, folder)
        finally:
            _note([k for k in missing if _is_loaded(k, float_type)], float_type, folder)


def _signature(k: Any, float_type: str) -> list[str]:
    return [s.format(float=float_type) for s in _signatures[k]]


def _is_loaded(k: Any, float_type: str) -> bool:
    loaded = getattr(k, "partrain_loaded", ())
    return float_type in loaded


def compile_into_cache(k: Any, float_type: str, folder: Path) -> None:
    """Compile a kernel, or take it from the cache, unless it is loaded; this process, or its parent, has the lock."""
    if _is_loaded(k, float_type):
        return
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    k.enable_caching()
    k.disable_compile(False)
    for signature in _signature(k, float_type):
        k.compile(signature)
    k.disable_compile()
    k.partrain_loaded = (*getattr(k, "partrain_loaded", ()), float_type)


# Numba neither syncs its files nor checks them: after a power failure, or on a bad disk, one could hold something
# else, and running that would end the process. So this file says which kernels are there, and the digest of each file.
_NOTES = "checksums.json"


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("**/*.nb[ic]"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _notes(folder: Path) -> dict[str, Any]:
    try:
        notes = json.loads((folder / _NOTES).read_bytes())
        return {"files": dict(notes["files"]), "kernels": list(notes["kernels"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {"files": {}, "kernels": []}


def _label(k: Any, float_type: str) -> str:
    """Return what stands for a kernel in the notes: with its file's place and time, which Numba's key has too.

    So of two checkouts neither takes what the other one noted for what it has itself.
    """
    file = Path(k.py_func.__code__.co_filename)
    return f"{file}:{file.stat().st_mtime_ns} {k.py_func.__name__} {float_type}"


def _are_noted(kernels: Iterable[Any], float_type: str, folder: Path) -> bool:
    return {_label(k, float_type) for k in kernels} <= set(_notes(folder)["kernels"])


def _note(kernels: Iterable[Any], float_type: str, folder: Path) -> None:
    kernels = [*_notes(folder)["kernels"], *(_label(k, float_type) for k in kernels)]
    temporary = folder / f"{_NOTES}.{os.getpid()}"
    temporary.write_text(json.dumps({"files": _checksums(folder), "kernels": kernels}))
    temporary.replace(folder / _NOTES)


def _discard_damaged_files(folder: Path, warn: Callable[[str], None]) -> None:
    if _checksums(folder) == _notes(folder)["files"]:
        return
    warn(f"the kernel cache {folder} is damaged, or its making was interrupted; the kernels are compiled again")
    (folder / _NOTES).unlink(missing_ok=True)
    for file in folder.glob("**/*.nb[ic]"):
        file.unlink()


@functools.cache
def sources_digest() -> str:
    """Return a digest of all kernel sources, the versions that compile them, and the processor."""
    digest = hashlib.sha256()
    kernels = Path(__file__).parents[1]
    for path in sorted(kernels.rglob("*.py")):
        digest.update(str(path.relative_to(kernels)).encode() + b"\0" + path.read_bytes() + b"\0")
    identity = (
        numba.__version__,
        llvmlite.__version__,
        sys.version,
        platform.machine(),
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
    )
    digest.update("\0".join(identity).encode())
    return digest.hexdigest()[:20]


def _cache_folder() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    folder = Path(given) if given else cache_home() / "kernels" / sources_digest()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    # Compiled code is executed: it must come from nobody else.
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} belongs to, or can be written by, somebody else")
    return folder


@functools.cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="partrain-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextlib.contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, operation)
        yield


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
