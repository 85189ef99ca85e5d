"""Memory that the processes of a computation need, compared with the memory that is available."""

from __future__ import annotations

import numpy as np

from partrain.config.schema.training import Training
from partrain.errors import ResourceError
from partrain.network.network import Network, examples_a_call
from partrain.system.machine import MIB, available_memory

# What a worker has of its own besides its buffers: Python's objects, stack, pages that the fork copied.
WORKER_BYTES = 16 * MIB
# The interpreter with NumPy and Numba: the coordinator's, and the fork server's.
INTERPRETER_BYTES = 160 * MIB


def memory_of_processes(training: Training, network: Network, num_workers: int) -> dict[str, int]:
    """Return what the processes that compute need of their own, in bytes, by what it is for."""
    buffers = examples_a_call(training.tile) * network.num_activations * max(np.dtype(training.dtype).itemsize, 8)
    return {
        f"{num_workers} workers": num_workers * (WORKER_BYTES + buffers) if num_workers else buffers,
        "interpreters": INTERPRETER_BYTES * (2 if num_workers else 1),
    }


def check_memory(plan: dict[str, int], what: str = "the training") -> None:
    """Compare the memory plan of `what` with what this process can still take.

    Raises
    ------
    ResourceError
        There is too little; says how much is needed, for what, and how much is there.
    """
    needed, there = sum(plan.values()), available_memory()
    if there is not None and needed > there:
        parts = ", ".join(f"{part} {size / MIB:,.0f} MiB" for part, size in plan.items())
        raise ResourceError(
            f"{what} needs about {needed / MIB:,.0f} MiB of memory ({parts}), but {there / MIB:,.0f} MiB "
            "are available; use fewer workers, a smaller batch or network, or free some memory"
        )
