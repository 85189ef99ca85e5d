from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from partrain.kernels.compiler.cache import CACHE_VARIABLE

# The kernels take the width of their vectors, and how many registers there are, from what llvmlite says of the
# processor; then it says the truth again.
AS_ON_ANOTHER_PROCESSOR = """
import sys
import llvmlite.binding
import numpy as np

name, lanes, pairs, *features = sys.argv[1:]
lanes, pairs = int(lanes), int(pairs)
binding = llvmlite.binding
name_of_this_one, features_of_this_one = binding.get_host_cpu_name, binding.get_host_cpu_features
features_of_another_one = binding.targets.FeatureMap(dict.fromkeys(features, True))
binding.get_host_cpu_name, binding.get_host_cpu_features = lambda: name, lambda: features_of_another_one
from partrain.kernels.simd import vectors
binding.get_host_cpu_name, binding.get_host_cpu_features = name_of_this_one, features_of_this_one
assert (vectors.LANES, vectors.PAIRS) == (lanes, pairs)
if lanes > vectors._lanes_of_this_processor():
    vectors._REGISTER_CLASS = None  # no register holds such a vector: LLVM may cut it up, an inline assembly may not

from partrain.kernels import convolution, convolution_backward, dense
from partrain.kernels.compiler.loading import load
from tests.kernels import channels_last, oracles

load(
    (
        convolution.pack_filters, convolution.conv2d_forward, convolution_backward.pack_patch_vectors,
        convolution_backward.conv2d_backward_winners, dense.dense_forward,
    ),
    "float32",
)

def assert_within_rounding(fast, exact, magnitude, num_terms):
    assert (np.abs(fast - exact) <= 1e-6 * np.sqrt(num_terms) * magnitude).all()

rng = np.random.default_rng(0)
for F, C, stride, padding in ((3, 2, (1, 1), (1, 2)), (21, 5, (2, 1), (0, 1))):
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, C, 9, 8), (F, C, 3, 2), F))
    y = channels_last.conv2d_forward(x, w, b, stride, padding)
    exact = oracles.conv2d_forward(*(a.astype(np.float64) for a in (x, w, b)), stride, padding)
    size = oracles.conv2d_forward(*(abs(a.astype(np.float64)) for a in (x, w, b)), stride, padding)
    assert_within_rounding(y, exact, size, C * 6 + 1)
    assert np.array_equal(channels_last.conv2d_forward(x[1:2], w, b, stride, padding), y[1:2])
    dy = rng.standard_normal(y.shape).astype(np.float32)
    (dw,), (db,), dx = channels_last.conv2d_backward_winners(
        x, w, dy, dy, channels_last.every_place_wins(dy), stride, padding, dy.shape[2:], rectified=False, tile=3
    )
    X, W, DY = (a.astype(np.float64) for a in (x, w, dy))
    exact = oracles.conv2d_backward_input(DY, W, stride, padding, x.shape)
    size = oracles.conv2d_backward_input(abs(DY), abs(W), stride, padding, x.shape)
    assert_within_rounding(dx, exact, size, F * 6)
    exact, exact_db = oracles.conv2d_backward_weights(X, DY, stride, padding, w.shape)
    size, size_db = oracles.conv2d_backward_weights(abs(X), abs(DY), stride, padding, w.shape)
    assert_within_rounding(dw, exact, size, dy[:, 0].size)
    assert_within_rounding(db, exact_db, size_db, dy[:, 0].size)

x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((5, 37), (7, 37), 7))
X, W, B = (a.astype(np.float64) for a in (x, w, b))
y = channels_last.dense_forward(x, w, b)
assert_within_rounding(y, X @ W.T + B, abs(X) @ abs(W.T) + abs(B), 38)
assert np.array_equal(channels_last.dense_forward(x[2:3], w, b), y[2:3])
print("good")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lanes", "pairs", "features"),
    [
        ("neoverse-n1", 4, 12, []),
        pytest.param("haswell", 8, 6, ["avx", "avx2"], marks=pytest.mark.slow),
        pytest.param("znver4", 8, 12, ["avx", "avx2", "avx512f", "avx512vl"], marks=pytest.mark.slow),
        ("sapphirerapids", 16, 12, ["avx", "avx2", "avx512f", "avx512vl"]),
    ],
)
def test_kernels_are_right_with_vectors_of_another_processor(name, lanes, pairs, features, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE} | {
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    ended = subprocess.run(
        [sys.executable, "-c", AS_ON_ANOTHER_PROCESSOR, name, str(lanes), str(pairs), *features],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "good\n", "")
