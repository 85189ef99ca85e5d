"""Compiles kernels in several processes, because LLVM is single-threaded and the first run has to wait.

This process and its helpers take groups of kernels from one queue, a pipe. Helpers compile into the cache, where this
process finds the machine code afterwards. It compiles whatever a failed helper left undone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from partrain.kernels.compiler.cache import KernelCache
from partrain.kernels.compiler.compile_order import group_kernels
from partrain.system.machine import MIB, available_memory, available_processors
from partrain.system.trusted_directory import TrustedDirectory

# More processes would wait for the few kernels that take longest.
MAX_PROCESSES = 4
# Kernels per process. A process imports Numba first; with fewer kernels it would start when all are compiled.
MIN_KERNELS = 4

# The memory that LLVM takes in this process, and that a helper takes.
PROCESS_BYTES = 130 * MIB

# How long the helpers may take when this process has nothing left to compile; some kernels take seconds.
PATIENCE_SECONDS = 120.0
# The interval between looks at what the helpers have done.
LOOK_SECONDS = 0.2

# The program of the helpers: they find modules where this process does.
PROGRAM = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from partrain.kernels.compiler.processes import compile_share
compile_share(job)
"""

# A number in the queue takes so many bytes, which the operating system gives to one reader.
_NUMBER_BYTES = 2


@contextlib.contextmanager
def compile_with_helpers(
    kernels: Sequence[Any], float_type: str, directory: TrustedDirectory, show: Callable[[], None]
) -> Iterator[Iterator[Any]]:
    """Compile kernels in helper processes inside the `with` block; it waits for them on exit.

    Parameters
    ----------
    kernels : the kernels to compile.
    float_type : see `loading.load`.
    directory : the directory of the cache.
    show : called now and then while this process waits for the helpers.

    Yields
    ------
    The kernels that this process must compile: it takes the next one when it is ready for it.
    """
    num_helpers = min(available_processors(), MAX_PROCESSES, len(kernels) // MIN_KERNELS) - 1
    if (room := available_memory()) is not None:
        num_helpers = min(num_helpers, room // PROCESS_BYTES - 1)
    if num_helpers < 1:
        yield iter(kernels)
        return
    groups = group_kernels(kernels)
    queue, end = os.pipe()
    with os.fdopen(end, "wb") as filled:
        filled.write(b"".join(number.to_bytes(_NUMBER_BYTES, "little") for number in range(len(groups))))
    job = {
        "path": sys.path,
        "groups": [[f"{k.py_func.__module__}:{k.py_func.__name__}" for k in group] for group in groups],
        "float_type": float_type,
        "directory": directory.descriptor,
        "queue": queue,
    }
    with os.fdopen(queue, "rb", buffering=0) as file, _helpers(num_helpers, job) as helpers:
        yield (kernel for number in _take(file) for kernel in groups[number])
        _wait_for(helpers, show)


def compile_share(job: dict[str, Any]) -> None:
    """Compile kernels from the queue into the cache.

    Parameters
    ----------
    job : as `compile_with_helpers` writes it.

    Side effects
    ------------
    Ends this process when the process that started it ends.
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    cache = KernelCache(TrustedDirectory(Path(), job["directory"]))
    with os.fdopen(job["queue"], "rb", buffering=0) as file:
        for number in _take(file):
            for kernel in job["groups"][number]:
                module, _, name = kernel.partition(":")
                cache.compile(getattr(importlib.import_module(module), name), job["float_type"])


@contextlib.contextmanager
def _helpers(num_helpers: int, job: dict[str, Any]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start helper processes; kill those that are still there at the end of the block."""
    optimize = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    # Without -P, Python would search the current directory for the modules that the program imports first.
    command = [sys.executable, "-P", *optimize, "-c", PROGRAM, json.dumps(job)]
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        with contextlib.suppress(OSError):
            for _ in range(num_helpers):
                helpers.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        pass_fds=(job["directory"], job["queue"]),
                    )
                )
        yield helpers
    finally:
        for helper in helpers:
            helper.kill()
            helper.communicate()


def _wait_for(helpers: Sequence[subprocess.Popen[bytes]], show: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for helper in helpers:
        while helper.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                helper.wait(LOOK_SECONDS)
            show()


def _take(queue: FileIO) -> Iterator[int]:
    """Take numbers from the queue until it is empty."""
    while number := queue.read(_NUMBER_BYTES):
        yield int.from_bytes(number, "little")


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
