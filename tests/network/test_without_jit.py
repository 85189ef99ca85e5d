"""The loops are plain Python: with the JIT disabled they compute the bits of the compiled ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import partrain

# Makes a step of a small network that has every layer, and writes all its results.
STEP = """
import sys
import numpy as np
from partrain.config.schema.layers import Conv, Dense, Dropout, Flatten, MaxPool, Relu
from partrain.config.schema.optimizer import Optimizer
from partrain.kernels import loops, loops_convolution
from partrain.kernels.compiler.flags import is_compiled
from partrain.network.execution import Factors, TrainingExamples
from partrain.network.loops_execution import LoopsExecution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.tiles import Tiling
from tests.loaded_kernels import load_all_kernels
from tests.optimizers import optimizer_of

assert is_compiled(loops_convolution.conv2d_forward) == (sys.argv[1] == "compiled")
load_all_kernels("loops", "float64")
layers = (
    Conv(filters=2, kernel=(3, 2), stride=(2, 1), padding=(1, 0)), Relu(), MaxPool(window=(2, 2)), Flatten(),
    Dropout(rate=0.3), Dense(units=4), Relu(), Dense(units=3),
)
network = Network(layers, (2, 7, 6), 3)
N, tile = 4, 2
specs = exchange_specs(network, N, Tiling(tile), "float64", N)
arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
arrays["parameters"][:] = network.parameters.initial_values(0, "float64")
images = np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (N, 2, 7, 6)).astype(np.uint8)
labels = np.array([0, 2, 1, 2])
execution = LoopsExecution(network, arrays["parameters"], Normalisation((100.0, 90.0), (60.0, 70.0)), tile, "float64")
optimizer = Optimizer(lr=0.1, weight_decay=0.01)
adam = optimizer_of(arrays["parameters"], optimizer, parameters=network.parameters, tile=tile)
update = ParameterUpdate(network, "loops", arrays, Tiling(tile), "float64", adam)
norms = np.zeros((N, len(network.trained_layers)))
for step in (1, 2):
    for first in range(0, N, tile):
        part = slice(first, first + tile)
        factors = {
            layer.name: Factors(arrays[f"{layer.name}.inputs"][part], arrays[f"{layer.name}.deltas"][part])
            for layer in network.dense_layers
        }
        indices = np.arange(first, first + tile)
        logits = execution.forward(images, indices, TrainingExamples(0, step, indices))
        dlogits = np.empty_like(logits)
        loops.softmax_cross_entropy(
            logits, labels[indices], *(arrays[name][part] for name in ("losses", "predictions", "confidences")), dlogits
        )
        execution.measure(dlogits, factors, norms[part])
        execution.sum_tiles(None, arrays["tile_sums"][first // tile :][:1], factors)
    assert update.apply(N, step) is None
np.savez(sys.argv[2], norms=norms, m=adam.first_moment, v=adam.second_moment, **arrays)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what a step computes, compiled and in plain Python."""
    folder = tmp_path_factory.mktemp("steps")
    roots = os.pathsep.join((str(Path(partrain.__file__).parents[1]), str(Path(__file__).parents[2])))
    found = {}
    for way in ("compiled", "plain"):
        environment = os.environ | {"PYTHONPATH": roots}
        if way == "plain":
            environment |= {"NUMBA_DISABLE_JIT": "1", "XDG_CACHE_HOME": str(folder)}
        path = folder / f"{way}.npz"
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", STEP, way, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stderr
        found[way] = np.load(path)
    assert {path.name for path in folder.iterdir()} == {"compiled.npz", "plain.npz"}  # no cache
    return found


def test_steps_in_plain_python_have_the_bits_of_the_compiled_loops(results):
    compiled, plain = results["compiled"], results["plain"]
    assert set(plain.files) == set(compiled.files) >= {"parameters", "losses", "norms", "tile_sums", "dense1.deltas"}
    for name in compiled.files:
        assert np.isfinite(compiled[name]).all()
        assert plain[name].tobytes() == compiled[name].tobytes(), name
    assert compiled["tile_sums"].any()
    assert compiled["norms"].all()
