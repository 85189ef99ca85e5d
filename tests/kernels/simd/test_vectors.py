from __future__ import annotations

import subprocess
import sys

import pytest

from tests.vector_widths import with_width

AS_ON_ANOTHER_PROCESSOR = """
import sys
import numpy as np

from partrain.kernels.simd import vectors
assert (vectors.LANES, vectors.PAIRS) == tuple(map(int, sys.argv[1:]))
from partrain.kernels import convolution, convolution_backward, dense, patch_vectors
from partrain.kernels.compiler.loading import load
from tests.kernels import channels_last, oracles

load(
    (
        convolution.pack_filters, convolution.conv2d_forward, patch_vectors.pack_patch_vectors,
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
@pytest.mark.parametrize(("lanes", "num_registers", "pairs"), [(4, 32, 12), (8, 16, 6), (8, 32, 12), (16, 32, 12)])
def test_kernels_are_right_with_vectors_of_another_processor(lanes, num_registers, pairs, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", AS_ON_ANOTHER_PROCESSOR, str(lanes), str(pairs)],
        env=with_width(lanes, num_registers=num_registers, XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "good\n", "")
