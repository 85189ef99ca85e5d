"""Plans the memory of the processes of a computation, and compares it with the available memory."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os

import numpy as np

from partrain.config.schema.training import Training
from partrain.errors import ResourceError
from partrain.network.layers import Conv2d, Dense, Relu
from partrain.network.network import Network, examples_per_call
from partrain.parallel.workers.fork_server import fork_server_pid
from partrain.system.machine import MIB, available_memory, private_memory

# The keys of a memory plan for what exists in part when it is checked: two processes, and the data before it is shared.
INTERPRETERS, TEMPORARY = "interpreters", "copies, checkpoints, plots"

# Measured, without the pages of program files, which the kernel can drop. The coordinator is an interpreter with NumPy
# and the schema of configurations; the fork server, which is counted with the resource tracker of `multiprocessing`,
# one with NumPy alone. A worker has so much besides its buffers that it does not share with the fork server.
COORDINATOR_BYTES = 44 * MIB
FORK_SERVER_BYTES = 26 * MIB
WORKER_BYTES = 7 * MIB
# Matplotlib and the pictures that it draws.
PLOT_BYTES = 55 * MIB


def memory_of_processes(training: Training, network: Network, num_workers: int) -> dict[str, int]:
    """Return the bytes of private memory that the computing processes need, by purpose."""
    num_examples, itemsize = examples_per_call(training.tile, network), max(np.dtype(training.dtype).itemsize, 8)
    num_numbers = network.num_activations - (_num_in_place(network) if training.kernels == "fast" else 0)
    image_bytes = math.prod(network.input_shape) * np.dtype(np.float32).itemsize
    buffers = num_examples * (num_numbers * itemsize + _changed_images(training) * image_bytes)
    if training.per_example.clips:  # a copy of the parameters
        buffers += network.parameters.size * np.dtype(training.dtype).itemsize
    return {
        f"{num_workers} workers": num_workers * (WORKER_BYTES + buffers) if num_workers else buffers,
        INTERPRETERS: COORDINATOR_BYTES + (FORK_SERVER_BYTES if num_workers else 0),
    }


def _num_in_place(network: Network) -> int:
    """Return how many outputs of one example the fast kernels write in the place of what they are computed from."""
    return sum(
        math.prod(layer.output_shape)
        for before, layer in itertools.pairwise(network.leaf_layers)
        if isinstance(layer, Relu) and isinstance(before, Conv2d | Dense)
    )


def _changed_images(training: Training) -> int:
    """Return how many images an example has while it is augmented and mixed."""
    augment = training.augment
    num_changes = 0 if augment is None else augment.resamples + augment.changes_pixels
    return num_changes * (1 + training.mixes) + training.mixes


def memory_of_plots() -> int:
    """Return the bytes that this process needs to draw plots; 0 if Matplotlib is not installed."""
    return PLOT_BYTES if importlib.util.find_spec("matplotlib") else 0


def check_memory(plan: dict[str, int], purpose: str = "the training") -> None:
    """Check that the available memory is sufficient for the memory plan.

    What this process and its fork server already have of it counts as available.

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
    if there is None:
        return
    server = fork_server_pid()
    # At most what the plan has for it: a program that calls partrain may have more.
    in_use = private_memory([os.getpid(), *([server] if server else [])])
    there += min(in_use, plan.get(INTERPRETERS, 0) + plan.get(TEMPORARY, 0))
    if needed > there:
        parts = ", ".join(f"{part} {size / MIB:,.0f} MiB" for part, size in plan.items())
        raise ResourceError(
            f"{purpose} needs about {needed / MIB:,.0f} MiB of memory ({parts}), but {there / MIB:,.0f} MiB "
            "are available; use fewer workers, a smaller batch or network, or free some memory"
        )
