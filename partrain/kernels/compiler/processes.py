"""Compiles kernels in several processes, because LLVM is single-threaded and the first run has to wait.

This process takes kernels from the front of the list, helpers from the end. Helpers compile into the cache, where this
process finds the machine code afterwards. It compiles whatever a failed helper left undone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from partrain.kernels.compiler.cache import compile_into_cache
from partrain.system.machine import available_processors

# More processes would wait for the few kernels that take longest.
MAX_PROCESSES = 4
# Kernels per process. A process imports Numba first; with fewer kernels it would start when all are compiled.
MIN_KERNELS = 4

# How long the helpers may take when this process has nothing left to compile; some kernels take seconds.
PATIENCE_SECONDS = 120.0

# The program of the helpers: they find modules where this process does.
PROGRAM = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from partrain.kernels.compiler.processes import compile_claimed
compile_claimed(job)
"""


@contextlib.contextmanager
def claims_among_compilers(kernels: Sequence[Any], float_type: str, directory: Path) -> Iterator[Callable[[int], bool]]:
    """Compile kernels in helper processes inside the `with` block; it waits for them on exit.

    Parameters
    ----------
    kernels : the kernels to compile.
    float_type : see `loading.load`.
    directory : the cache directory, whose lock this process holds.

    Yields
    ------
    A function that returns whether this process must compile the kernel at an index of the list; call it once per
    kernel.
    """
    num_helpers = min(available_processors(), MAX_PROCESSES, len(kernels) // MIN_KERNELS) - 1
    if num_helpers < 1:
        yield lambda place: True
        return
    with _claims_directory(directory) as claims:
        job = {
            "path": sys.path,
            "kernels": [f"{k.py_func.__module__}:{k.py_func.__name__}" for k in kernels],
            "float_type": float_type,
            "directory": str(directory),
            "claims": str(claims),
        }
        command = [sys.executable, "-c", PROGRAM, json.dumps(job)]
        helpers: list[subprocess.Popen[bytes]] = []
        try:
            with contextlib.suppress(OSError):
                for _ in range(num_helpers):
                    helpers.append(
                        subprocess.Popen(
                            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                        )
                    )
            yield lambda place: _claim(claims, place)
            with contextlib.suppress(subprocess.TimeoutExpired):
                for helper in helpers:
                    helper.wait(PATIENCE_SECONDS)
        finally:
            for helper in helpers:
                helper.kill()
                helper.communicate()


def compile_claimed(job: dict[str, Any]) -> None:
    """Claim kernels from the end of the list on, and compile them into the cache.

    Parameters
    ----------
    job : as `claims_among_compilers` writes it.

    Side effects
    ------------
    Ends this process when the process that started it ends.
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    for place in reversed(range(len(job["kernels"]))):
        if _claim(Path(job["claims"]), place):
            module, _, name = job["kernels"][place].partition(":")
            kernel = getattr(importlib.import_module(module), name)
            compile_into_cache(kernel, job["float_type"], Path(job["directory"]))


@contextlib.contextmanager
def _claims_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty directory for the claims; what a killed process has left in it is deleted."""
    claims = directory / "claims"
    shutil.rmtree(claims, ignore_errors=True)
    claims.mkdir()
    try:
        yield claims
    finally:
        shutil.rmtree(claims, ignore_errors=True)


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _claim(claims: Path, place: int) -> bool:
    try:
        (claims / str(place)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
