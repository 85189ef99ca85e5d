"""The kernel cache: machine code on disk, in a directory of the user's own.

Numba reads and writes the files. The directory is named by a digest of all kernel sources, the versions that compile
them and the processor: Numba's own key would miss a change in a file that a kernel calls into. Numba neither syncs its
files nor checks them, and running a damaged one could end the process. So `checksums.json` lists the kernels that the
cache holds and the digest of each file; whatever does not match it is deleted and compiled again.

Functions that take a directory expect the caller, or its parent process, to hold the lock of that directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba

from partrain.kernels.compiler.flags import Kernel, signatures_of
from partrain.system.cache_directories import user_cache_directory
from partrain.system.process_directory import process_directory

# Names the cache directory that the coordinator uses, for the fork server and the workers.
CACHE_VARIABLE = "PARTRAIN_KERNEL_CACHE"

_CHECKSUMS = "checksums.json"


def is_loaded(kernel: Kernel, float_type: str) -> bool:
    """Return whether this process can call the kernel with arrays of `float_type`."""
    return float_type in getattr(kernel, "partrain_loaded", ())


def compile_into_cache(kernel: Kernel, float_type: str, directory: Path) -> None:
    """Take a kernel from the cache, or compile it and add it; do nothing if it is loaded.

    Afterwards the kernel is closed: an argument of another type or layout is a TypeError, not another specialisation
    with other bits.
    """
    if is_loaded(kernel, float_type):
        return
    dispatcher: Any = kernel
    numba.config.CACHE_DIR = str(directory)  # type: ignore[attr-defined]
    dispatcher.enable_caching()
    dispatcher.disable_compile(False)
    for signature in signatures_of(kernel, float_type):
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    dispatcher.partrain_loaded = (*getattr(kernel, "partrain_loaded", ()), float_type)


def listed_kernels(kernels: Iterable[Kernel], float_type: str, directory: Path) -> list[Kernel]:
    """Return those of `kernels` that the cache lists."""
    listed = set(_read_checksums(directory)["kernels"])
    return [k for k in kernels if _label(k, float_type) in listed]


def is_intact(directory: Path) -> bool:
    """Return whether every file of the cache has the digest that is listed for it."""
    listed: dict[str, str] = _read_checksums(directory)["files"]
    return listed == _checksums(directory)


def list_kernels(kernels: Iterable[Kernel], float_type: str, directory: Path) -> None:
    """Add kernels to the list, and the digests of all files as they are now."""
    labels = [*_read_checksums(directory)["kernels"], *(_label(k, float_type) for k in kernels)]
    temporary = directory / f"{_CHECKSUMS}.{os.getpid()}"
    temporary.write_text(json.dumps({"files": _checksums(directory), "kernels": labels}))
    temporary.replace(directory / _CHECKSUMS)


def discard_damaged_files(directory: Path, warn: Callable[[str], None]) -> None:
    """Empty the cache, and warn, if a file has another digest than is listed for it."""
    if is_intact(directory):
        return
    warn(f"the kernel cache {directory} is damaged, or writing it was interrupted; the kernels are compiled again")
    (directory / _CHECKSUMS).unlink(missing_ok=True)
    for file in directory.glob("**/*.nb[ic]"):
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


def cache_directory() -> Path:
    """Return the directory of the cache; create it if there is none.

    Raises
    ------
    OSError
        It cannot be created, or another user could write machine code into it.
    """
    named = os.environ.get(CACHE_VARIABLE)
    directory = Path(named) if named else user_cache_directory() / "kernels" / sources_digest()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{directory} belongs to another user, or other users may write to it")
    return directory


@functools.cache
def temporary_directory() -> Path:
    """Return a directory that stands in for the cache; it is deleted when this process ends."""
    return Path(tempfile.mkdtemp(prefix="kernels-", dir=process_directory()))


@contextlib.contextmanager
def shared_lock(directory: Path) -> Iterator[None]:
    """Hold the lock with other processes that only read the cache."""
    with _locked(directory, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Hold the lock alone, to write to the cache.

    Numba numbers the data files of one kernel's signatures: two processes that each add a signature at the same time
    could choose the same number.
    """
    with _locked(directory, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(directory: Path, operation: int) -> Iterator[None]:
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, operation)
        yield


def _checksums(directory: Path) -> dict[str, str]:
    files = sorted(directory.glob("**/*.nb[ic]"))
    return {str(f.relative_to(directory)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _read_checksums(directory: Path) -> dict[str, Any]:
    try:
        content = json.loads((directory / _CHECKSUMS).read_bytes())
        return {"files": dict(content["files"]), "kernels": list(content["kernels"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {"files": {}, "kernels": []}


def _label(kernel: Kernel, float_type: str) -> str:
    """Return the kernel's name in the list, with the path and modification time of its file, as in Numba's own key.

    So two checkouts that share a cache do not take each other's entries for their own.
    """
    function: Any = kernel
    file = Path(function.py_func.__code__.co_filename)
    return f"{file}:{file.stat().st_mtime_ns} {function.py_func.__name__} {float_type}"
