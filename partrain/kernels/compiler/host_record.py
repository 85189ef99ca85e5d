"""What LLVM calls this processor, recorded in the cache: asking LLVM takes 50 ms and 40 MB.

The record is used only on a processor that Linux and NumPy describe with the same words. NumPy asks the processor
itself: under an emulator, Linux describes the wrong one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import platform
from pathlib import Path

import numpy as np

from partrain.kernels.compiler.numba_settings import settings_text
from partrain.system.cache_directories import require_lasting_cache, user_cache_directory
from partrain.system.trusted_directory import TrustedDirectory

# The lines of /proc/cpuinfo that tell processors apart, on x86-64 and arm64.
_FIELDS = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
)


def version_of(package: str) -> bytes:
    """Return what identifies the version of a package, which is not imported."""
    found = importlib.util.find_spec(package)
    assert found is not None, package
    assert found.origin is not None, package
    return (Path(found.origin).parent / "_version.py").read_bytes()


def read_host() -> tuple[str, str] | None:
    """Return LLVM's name of this processor and its features; None if there is no record."""
    name = record_name()
    with contextlib.suppress(OSError, ValueError, TypeError):
        if name is not None:
            with TrustedDirectory.open(_directory()) as directory:
                processor, features = json.loads(directory.read(name))
                return str(processor), str(features)
    return None


def write_host(processor: str, features: str) -> None:
    """Record the result of `read_host` for later processes, if the cache can be written."""
    name = record_name()
    with contextlib.suppress(OSError):
        if name is not None:
            require_lasting_cache()
            with TrustedDirectory.open(_directory(), make=True) as directory:
                directory.write(name, json.dumps([processor, features]).encode())


def _directory() -> Path:
    return user_cache_directory() / "processors"


def record_name() -> str | None:
    """Return the name of the record; None if this system does not describe its processor."""
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return None
    fields = dict(line.partition(":")[::2] for line in first.splitlines())
    described = [f"{name}:{value}" for name, value in fields.items() if name.strip() in _FIELDS]
    core = np._core if hasattr(np, "_core") else np.core
    features = sorted(core._multiarray_umath.__cpu_features__.items())
    identity = hashlib.sha256(repr((platform.machine(), described, features)).encode())
    identity.update(settings_text(("ENABLE_AVX",)).encode() + version_of("llvmlite") + version_of("numba"))
    return f"{identity.hexdigest()[:20]}.json"
