"""Compiles kernels in several processes: LLVM uses one processor, and a first run waits for it.

Each process claims kernels of a list, this one from its front, the others from its end. They compile into the cache,
where this process finds the machine code afterwards. It depends on none of them: it compiles itself whatever a failed
or killed process has left.
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
# For each process. A process imports Numba first; with fewer kernels it would start when all are compiled.
MIN_KERNELS = 4

# How long the other processes may take when this one has nothing left to compile; some kernels take seconds.
PATIENCE_SECONDS = 120.0

# The program of the other processes: they find modules where this one does.
PROGRAM = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from partrain.kernels.compiler.processes import compile_claimed
compile_claimed(job)
"""


@contextlib.contextmanager
def claims_among_compilers(kernels: Sequence[Any], float_type: str, directory: Path) -> Iterator[Callable[[int], bool]]:
    """Let other processes compile kernels, too, while the body runs; they have ended when it is left.

    Parameters
    ----------
    kernels : the kernels to compile.
    float_type : see `loading.load`.
    directory : of the cache, whose lock this process holds.

    Yields
    ------
    A function that returns whether this process must compile the kernel at an index of the list; call it once for each.
    """
    num_others = min(available_processors(), MAX_PROCESSES, len(kernels) // MIN_KERNELS) - 1
    if num_others < 1:
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
        others: list[subprocess.Popen[bytes]] = []
        try:
            with contextlib.suppress(OSError):
                for _ in range(num_others):
                    others.append(
                        subprocess.Popen(
                            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                        )
                    )
            yield lambda place: _claim(claims, place)
            with contextlib.suppress(subprocess.TimeoutExpired):
                for other in others:
                    other.wait(PATIENCE_SECONDS)
        finally:
            for other in others:
                other.kill()
                other.communicate()


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
