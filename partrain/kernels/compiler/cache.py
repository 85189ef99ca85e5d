"""The kernel cache: machine code on disk, in a directory that only this user can change.

The directory is named by a digest of all kernel sources, the versions that compile them and the processor: a kernel's
own source would miss a change in a file that it calls into. So equal installations share a cache. There is one file for
each signature of a kernel. It appears when it is complete, so readers need no lock; it begins with a digest of its
content, because running damaged machine code could end the process. What it holds is executed: that is why the
directory must be trusted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from partrain.kernels.compiler.deferred import DeferredModule
from partrain.kernels.compiler.flags import Kernel, signatures_of
from partrain.kernels.compiler.host_record import version_of
from partrain.kernels.compiler.linking import LinkError, link
from partrain.kernels.compiler.machine_code import MachineCode
from partrain.kernels.compiler.numba_settings import settings_text
from partrain.kernels.compiler.target import num_vector_registers, target_features, target_name, vector_width
from partrain.system.cache_directories import require_lasting_cache, user_cache_directory
from partrain.system.durable_files import sweep_temporaries
from partrain.system.process_directory import process_directory
from partrain.system.signals import interruption_behind
from partrain.system.trusted_directory import TrustedDirectory

# Names the cache directory that the coordinator uses, for the fork server and the workers.
CACHE_VARIABLE = "PARTRAIN_KERNEL_CACHE"

SUFFIX = ".kernel"
_LOCK = "lock"
# What a file begins with whose machine code is not linked: on systems whose object files are not ELF.
OBJECTS = b"objects\n"
_object_code = DeferredModule("partrain.kernels.compiler.object_code")
# Settings of Numba that change the machine code.
_SETTINGS = (
    *("BOUNDSCHECK", "CPU_FEATURES", "CPU_NAME", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML", "ENABLE_AVX"),
    *("LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE"),
)


class DamagedEntry(Exception):
    """A file of the cache does not have the content that was written into it."""


def is_loaded(kernel: Kernel, float_type: str) -> bool:
    """Return whether this process can call the kernel with arrays of `float_type`."""
    return float_type in kernel.loaded


class KernelCache:
    """The cache in one directory; as a context manager it closes the directory at the end.

    Parameters
    ----------
    directory : the directory, which other users cannot change.
    is_temporary : whether it stands in for a cache that cannot be used; then kernels that cannot be written are only
        loaded.
    """

    def __init__(self, directory: TrustedDirectory, *, is_temporary: bool = False) -> None:
        self.directory, self._is_temporary = directory, is_temporary

    def has(self, kernel: Kernel, float_type: str) -> bool:
        """Return whether the cache has all signatures of a kernel."""
        try:
            for name in _entry_names(kernel, float_type):
                os.stat(name, dir_fd=self.directory.descriptor, follow_symlinks=False)
        except OSError:
            return False
        return True

    def load(self, kernel: Kernel, float_type: str) -> bool:
        """Load a kernel; compile nothing. Return whether the cache has it, or it was loaded before.

        Raises
        ------
        DamagedEntry
            A file is damaged. It has been deleted, if that is possible.
        OSError
            A file cannot be read, or another user could have written it.
        """
        if is_loaded(kernel, float_type):
            return True
        names, signatures = _entry_names(kernel, float_type), signatures_of(kernel, float_type)
        try:
            payloads = [self._payload(name) for name in names]
        except FileNotFoundError:
            return False
        try:
            for signature, payload in zip(signatures, payloads, strict=True):
                _add(kernel, signature, payload)
        except Exception as error:  # what reading may raise depends on the content
            if isinstance(error, MemoryError) or interruption_behind(error) is not None:
                raise
            for name in names:
                self.directory.remove(name)
            raise DamagedEntry(f"{names[0]}: {error!r}") from error
        kernel.loaded += (float_type,)
        return True

    def compile(self, kernel: Kernel, float_type: str) -> None:
        """Compile a kernel, unless it is loaded, and add it to the cache.

        Raises
        ------
        OSError
            It cannot be added; it is loaded all the same.
        numba.core.errors.NumbaError
            It does not compile.
        """
        if is_loaded(kernel, float_type):
            return
        signatures = signatures_of(kernel, float_type)
        payloads = [_compile(kernel, signature) for signature in signatures]
        for signature, payload in zip(signatures, payloads, strict=True):
            _add(kernel, signature, payload)
        kernel.loaded += (float_type,)
        for name, payload in zip(_entry_names(kernel, float_type), payloads, strict=True):
            try:
                self._write(name, payload)
            except OSError:
                if not self._is_temporary:
                    raise

    def copy_from(self, other: KernelCache, kernel: Kernel, float_type: str) -> bool:
        """Copy a kernel's files from another cache; return whether that has them."""
        try:
            for name in _entry_names(kernel, float_type):
                self._write(name, other._payload(name))
        except (OSError, DamagedEntry):
            return False
        return True

    @contextlib.contextmanager
    def locked(self, waits: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of the cache: processes that start together do not all compile the same kernels.

        Also deletes what killed processes have left half written. `waits` is called if another process holds the lock.

        Raises
        ------
        OSError
            The directory is not writable.
        """
        with self.directory.locked(_LOCK, waits):
            sweep_temporaries(self.directory.pinned_path)
            yield

    def _write(self, name: str, payload: bytes) -> None:
        self.directory.write(name, hashlib.sha256(payload).digest(), payload, mode=0o600)

    def _payload(self, name: str) -> bytes:
        content = self.directory.read(name)
        digest, payload = content[:32], content[32:]
        if hashlib.sha256(payload).digest() != digest:
            self.directory.remove(name)
            raise DamagedEntry(name)
        return payload

    def __enter__(self) -> KernelCache:
        return self

    def __exit__(self, *ending: object) -> None:
        self.directory.close()


def _compile(kernel: Kernel, signature: str) -> bytes:
    """Compile a kernel; return what a file of the cache holds."""
    code = _object_code.compile_kernel(kernel, signature)
    try:
        return link(*code).to_bytes()
    except LinkError:
        return code.to_bytes()


def _add(kernel: Kernel, signature: str, payload: bytes) -> None:
    """Let Python call the machine code of a signature."""
    if signature not in kernel.addresses:  # it may be the same for float32 and float64
        kind = _object_code.ObjectCode if payload.startswith(OBJECTS) else MachineCode
        kernel.add(signature, kind.from_bytes(payload).load(kernel.__name__))


@functools.cache
def sources_digest() -> str:
    """Return a digest of all kernel sources, what compiles them and with which settings, and the processor."""
    digest = hashlib.sha256()
    kernels = Path(__file__).parents[1]
    for path in sorted(kernels.rglob("*.py")):
        digest.update(str(path.relative_to(kernels)).encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(version_of("numba") + version_of("llvmlite"))
    identity = (
        np.__version__,
        f"{sys.implementation.cache_tag}{sys.abiflags}",
        f"optimize={sys.flags.optimize}",  # python -O compiles no assert statement
        settings_text(_SETTINGS),
        platform.machine(),
        target_name(),
        target_features(),
        f"{num_vector_registers()} vectors of {vector_width()}",
    )
    digest.update("\0".join(identity).encode())
    return digest.hexdigest()[:20]


def open_cache() -> KernelCache:
    """Open the cache; create its directory if there is none.

    Raises
    ------
    OSError
        It cannot be created, or another user could write machine code into it.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if not named:
        require_lasting_cache()
    path = Path(named) if named else user_cache_directory() / "kernels" / sources_digest()
    return KernelCache(TrustedDirectory.open(path, make=True, mode=0o700))


@functools.cache
def temporary_directory() -> Path:
    """Return a directory that stands in for the cache; it is deleted when this process ends."""
    return Path(tempfile.mkdtemp(prefix="kernels-", dir=process_directory()))


def _entry_names(kernel: Kernel, float_type: str) -> list[str]:
    """Return the name of the file for each signature of a kernel."""
    code = kernel.py_func
    digest = _digest_of_file(code.__code__.co_filename)
    names = []
    for signature in signatures_of(kernel, float_type):
        identity = "\0".join((code.__module__, code.__qualname__, digest, signature))
        names.append(f"{code.__name__}-{hashlib.sha256(identity.encode()).hexdigest()[:20]}{SUFFIX}")
    return names


@functools.cache
def _digest_of_file(path: str) -> str:
    """Return the digest of a source file: kernels outside this package are not among those of `sources_digest`."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
