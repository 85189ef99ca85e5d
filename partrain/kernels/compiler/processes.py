"""Compiling kernels in several processes: LLVM takes one processor, and a first run waits for it.

Each process takes from a list what nobody has taken yet, this one from its front, the others from its end. What they
compile goes into the cache, where this one finds it afterwards. Nothing depends on them: what one that failed or died
has left is compiled by this process.
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

# More would wait for the few kernels that take longest.
MOST_PROCESSES = 4
# For each process. One that is started imports Numba first, and with fewer it would come when all is done.
LEAST_KERNELS = 4

# How long the others may take when this process has nothing left to compile; some kernels take seconds.
PATIENCE_SECONDS = 120.0

# What the other processes run: they find modules where this one does.
PROGRAM = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from partrain.kernels.compiler.options import compile_into_cache
from partrain.kernels.compiler.processes import help_to_compile
help_to_compile(job, compile_into_cache)
"""


@contextlib.contextmanager
def claims_among_compilers(kernels: Sequence[Any], float_type: str, folder: Path) -> Iterator[Callable[[int], bool]]:
    """Have other processes compile kernels, too, while the body does; on leaving it they have ended.

    Parameters
    ----------
    kernels : what is to be compiled.
    float_type, folder : see `options.load`; the folder is that of the cache, whose lock this process holds.

    Provides
    --------
    A function that says whether the kernel at a place in the list is this process's to compile; each is asked for once.
    """
    num_others = min(_num_processors(), MOST_PROCESSES, len(kernels) // LEAST_KERNELS) - 1
    if num_others < 1:
        yield lambda place: True
        return
    with _claims_folder(folder) as claims:
        job = {
            "path": sys.path,
            "kernels": [f"{k.py_func.__module__}:{k.py_func.__name__}" for k in kernels],
            "float_type": float_type,
            "folder": str(folder),
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


def help_to_compile(job: dict[str, Any], compile_into_cache: Callable[[Any, str, Path], object]) -> None:
    """Compile what nobody else has taken, from the end of the list on; end when the process that asked for it does.

    Parameters
    ----------
    job : what `claims_among_compilers` has written.
    compile_into_cache : compiles a kernel for a floating-point type into a folder.
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    for place in reversed(range(len(job["kernels"]))):
        if _claim(Path(job["claims"]), place):
            module, _, name = job["kernels"][place].partition(":")
            compile_into_cache(getattr(importlib.import_module(module), name), job["float_type"], Path(job["folder"]))


@contextlib.contextmanager
def _claims_folder(folder: Path) -> Iterator[Path]:
    """Provide an empty folder: one that was left by a process that was killed is emptied."""
    claims = folder / "claims"
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


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
