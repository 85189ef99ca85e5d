"""The provenance of a run: versions, processor, host, git commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import partrain
from partrain.system.machine import processor_features, processor_name

# The environment variables with which Numba compiles for another processor.
NUMBA_TARGET = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX")


def provenance() -> dict[str, Any]:
    """Return the software versions, the processor, the host and the git commit.

    They change no bit of a run; they say where to look if a bit should differ after all.
    """
    packages = ("numpy", "numba", "llvmlite", "safetensors")
    return {
        "versions": {
            "partrain": partrain.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "processor": {
            "machine": platform.machine(),
            "name": processor_name(),
            "features": processor_features(),
            **({"numba_target": target} if (target := _numba_target()) else {}),
        },
        "host": socket.gethostname(),
        "git_commit": _git_commit(),
    }


def _numba_target() -> dict[str, str]:
    """Return the variables that make Numba compile for another processor than this one."""
    return {name: os.environ[name] for name in NUMBA_TARGET if name in os.environ}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for each version that differs between two results of `provenance`, and one for the processor."""
    versions = before["versions"] | now["versions"]
    lines = [
        f"{name} {before['versions'].get(name)} -> {now['versions'].get(name)}"
        for name in versions
        if before["versions"].get(name) != now["versions"].get(name)
    ]
    old, new = before["processor"], now["processor"]
    if old != new:
        changed = sorted(set(old["features"]) ^ set(new["features"]))
        lines.append(f"processor {old['name']} -> {new['name']} (instruction sets that differ: {changed})")
        if old.get("numba_target") != new.get("numba_target"):
            lines.append(f"Numba's target {old.get('numba_target')} -> {new.get('numba_target')}")
    return lines


def _git_commit() -> str | None:
    """Return the commit of the checkout that partrain runs from, or None if it runs from an installation."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
