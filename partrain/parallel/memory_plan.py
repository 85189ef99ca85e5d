"""Plans the memory of the processes of a computation, and compares it with the available memory."""

from __future__ import annotations

import numpy as np

from partrain.config.schema.training import Training
from partrain.errors import ResourceError
from partrain.network.network import Network, examples_per_call
from partrain.system.machine import MIB, available_memory

# Private memory of a worker besides its buffers: Python objects, stack, pages copied after the fork.
WORKER_BYTES = 16 * MIB
# An interpreter with NumPy and Numba; the coordinator and the fork server have one each.
INTERPRETER_BYTES = 160 * MIB


def memory_of_processes(training: Training, network: Network, num_workers: int) -> dict[str, int]:
    """Return the bytes of private memory that the computing processes need, by purpose."""
    buffers = examples_per_call(training.tile) * network.num_activations * max(np.dtype(training.dtype).itemsize, 8)
    return {
        f"{num_workers} workers": num_workers * (WORKER_BYTES + buffers) if num_workers else buffers,
        "interpreters": INTERPRETER_BYTES * (2 if num_workers else 1),
    }


def check_memory(plan: dict[str, int], purpose: str = "the training") -> None:
    """Check that the available memory is sufficient for the memory plan.

    Parameters
    ----------
    plan : the bytes of each part.
    purpose : the subject of the message.

    Raises
    ------
    ResourceError
        It is not; the message says how much is needed, for which purposes, and how much is available.
    """
    needed, there = sum(plan.values()), available_memory()
    if there is not None and needed > there:
        parts = ", ".join(f"{part} {size / MIB:,.0f} MiB" for part, size in plan.items())
        raise ResourceError(
            f"{purpose} needs about {needed / MIB:,.0f} MiB of memory ({parts}), but {there / MIB:,.0f} MiB "
            "are available; use fewer workers, a smaller batch or network, or free some memory"
        )
