"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Each array ends where a page begins that nobody may read; only those that say so have numbers for vectors behind them.
GUARD_PAGES = """
import ctypes, math, mmap, sys
import numpy as np
from partrain.network.normalisation import Normalisation
from partrain.kernels.simd.vectors import LANES
from partrain.network import fast_execution
from partrain.network.execution import Factors
from tests.loaded_kernels import load_all_kernels
from tests.network.networks import NETWORKS
from tests.network.random_networks import NUM_RANDOM_NETWORKS, random_network

libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def guarded(shape, dtype=np.float32, slack=0):
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    dtype = np.dtype(dtype)
    num_bytes = (math.prod(shape) + slack) * dtype.itemsize
    pages = -(-num_bytes // PAGE) + 2
    memory = np.frombuffer(mmap.mmap(-1, pages * PAGE), np.uint8)
    for page in (0, pages - 1):
        address = ctypes.c_void_p(memory.ctypes.data + page * PAGE)
        assert libc.mprotect(address, ctypes.c_size_t(PAGE), 0) == 0
    first = (pages - 1) * PAGE - num_bytes
    return memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

class Guarded:
    zeros = empty = staticmethod(guarded)

    def __getattr__(self, name):
        return getattr(np, name)

stages = [module for name, module in sys.modules.items() if name.startswith("partrain.network.stages.")]
for module in (fast_execution, *stages):
    if hasattr(module, "np"):
        module.np = Guarded()
    if hasattr(module, "zeros_with_slack"):
        module.zeros_with_slack = lambda shape, dtype=np.float32: guarded(shape, dtype, LANES)
load_all_kernels("fast", "float32")
networks = NETWORKS | {f"network {seed}": random_network(seed) for seed in range(0, NUM_RANDOM_NETWORKS, 2)}
rng = np.random.default_rng(0)

def drawn(shape):
    array = guarded(shape)
    array[...] = rng.standard_normal(array.shape)
    return array

for name, network in networks.items():
    print(name, flush=True)
    as_they_are = Normalisation((0.0,) * network.input_shape[0], (1.0,) * network.input_shape[0])
    execution = fast_execution.FastExecution(network, drawn(network.parameters.size), as_they_are, 4)
    images = drawn((9, *network.input_shape))
    for N in (execution.capacity, 1):
        indices = guarded(N, np.int64)
        indices[:] = 9 - np.arange(1, N + 1)
        execution.forward(images, indices)
        factors = {
            layer.name: Factors(guarded((N, *layer.input_shape)), guarded((N, *layer.output_shape)))
            for layer in network.dense_layers
        }
        slots = guarded((-(-N // 4), network.tile_sums.size))
        execution.backward(drawn((N, network.num_outputs)), slots, factors)
print("end")
"""


def test_nothing_is_read_outside_the_arrays():
    ended = subprocess.run(
        [sys.executable, "-c", GUARD_PAGES],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    last_lines = ended.stdout.splitlines()[-1:]
    assert (ended.returncode, last_lines, ended.stderr) == (0, ["end"], "")


# ---- dropout
