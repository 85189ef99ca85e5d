"""`python -m tests.kernels.kernel_bits` prints a digest for each kernel and random shape, with this process's vectors.

Shapes: N examples; C, H, W channels, rows, columns; F filters; D, E dense inputs, outputs; K numbers of a slot.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from partrain.kernels import (
    activations,
    chacha20,
    convolution_backward,
    convolution_weights,
    dense,
    layer_normalisation,
    max_pool,
    norms,
    patch_vectors,
    residual,
)
from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from partrain.kernels.convolution import conv2d_forward, pack_filters
from partrain.kernels.gaussian_noise import add_gaussian_noise
from partrain.kernels.layout import flatten_forward
from partrain.kernels.loops_loss import softmax_soft_cross_entropy
from partrain.kernels.mixing import draw_mixing, mix
from partrain.kernels.pixel_changes import change_pixels
from partrain.kernels.plane_convolution import conv2d_pooled_forward
from partrain.kernels.toom_cook_convolution import (
    conv2d_forward_3x3,
    conv2d_forward_5x5,
    transform_filters_3x3,
    transform_filters_5x5,
)
from partrain.kernels.toom_cook_convolution_1d import conv2d_forward_1d, transform_filters_1d
from partrain.kernels.update_pieces import adam, apply_rule
from partrain.kernels.update_rules import Rule
from tests.kernels import channels_last, normalisation
from tests.kernels.convolutions import Pooled, Pooling, Shapes, backward_by_winners, drawn
from tests.network.stages import plain_convolutions


@kernel("void(float32[::1], float32[::1], float32[::1], float32[::1], float32[::1])")
def adam_in_place(gradient, coefficients, m, v, w):
    adam(gradient, 0, gradient.size, coefficients, m, v, w, m, v, w)


@kernel("void(int64, float32[::1], float32[::1], float32[::1], float32[::1])")
def apply_in_place(rule, gradient, coefficients, m, w):
    apply_rule(rule, gradient, 0, gradient.size, coefficients, m, m, w, m, m, w)


ACTIVATIONS = (
    activations.gelu_forward, activations.gelu_by_tanh_forward, activations.silu_forward, activations.tanh_forward,
    activations.sigmoid_forward,
)  # fmt: skip
FAST_KERNELS = (
    *ACTIVATIONS, activations.leaky_relu_forward,
    conv2d_forward, conv2d_pooled_forward, pack_filters, patch_vectors.pack_patch_vectors,
    convolution_backward.conv2d_backward_winners,
    convolution_weights.conv2d_backward_weights, max_pool.max_pool_forward, dense.dense_forward,
    dense.dense_backward_input, dense.dense_backward_weights, adam_in_place, apply_in_place, transform_filters_1d,
    conv2d_forward_1d, transform_filters_3x3, conv2d_forward_3x3, transform_filters_5x5, conv2d_forward_5x5,
    flatten_forward,
    *normalisation.KERNELS,
    layer_normalisation.layer_norm_forward, layer_normalisation.layer_norm_backward, residual.add_branches,
    residual.add_branch_gradients,
)  # fmt: skip


def dense_results(rng):
    D = int(rng.choice([rng.integers(1, 48), rng.integers(40, 161), rng.integers(1000, 2200)]))
    N, E = (int(size) for size in rng.integers(1, 23, 2))
    x, w, b, dy = (rng.standard_normal(size).astype(np.float32) for size in ((N, D), (E, D), E, (N, E)))
    dy[dy < 0] = 0
    yield f"dense forward {N, D, E}", channels_last.dense_forward(x, w, b)
    yield f"dense backward input {N, D, E}", channels_last.dense_backward_input(dy, w)
    yield f"dense backward weights {N, D, E}", channels_last.dense_backward_weights(x, dy)


def convolution_results(rng):
    C, F = (int(rng.choice([rng.integers(1, 10), rng.integers(10, 41)])) for _ in range(2))
    size, stride, padding = (tuple(rng.integers(first, last, 2).tolist()) for first, last in ((1, 8), (1, 3), (0, 4)))
    H, W = (int(max(size[k] - 2 * padding[k], rng.integers(1, 20))) for k in range(2))
    shapes = Shapes(int(rng.integers(1, 4)), C, H, W, F, size, stride, padding)
    x, w, b, dy = drawn(shapes, 0, "float32")
    yield f"forward {shapes}", channels_last.conv2d_forward(x, w, b, stride, padding)
    yield f"backward {shapes}", backward_by_winners(shapes, x, w, dy)
    every_place = channels_last.conv2d_backward_weights(x, dy, dy, size, stride, padding, rectified=True, tile=2)
    yield f"backward weights {shapes}", every_place
    window = tuple(min(2, places) for places in shapes.output[2:])
    pooled = Pooled(shapes, Pooling(window, window), 0, rectified=True)
    yield f"backward, pooled {shapes}", pooled.taken_back()
    plane = Shapes(shapes.N, 1, H, W + 33, F, size, padding=padding)  # at least as wide as the widest vectors
    x, w, b, _ = drawn(plane, 0, "float32")
    if plane.output[2] > 1:
        yield f"one channel, pooled {plane}", channels_last.plane_forward(x, w, b, padding, rectified=True)
    plane = Shapes(shapes.N, 1, H + 4, W + 4, F, (5, 5))
    x, _, _, dy = drawn(plane, 0, "float32")
    every_place = channels_last.conv2d_backward_weights(x, dy, dy, (5, 5), (1, 1), (0, 0), rectified=True, tile=2)
    yield f"backward weights {plane}", every_place


def toom_cook_results(rng):
    size = tuple(rng.choice([(1, 5), (3, 5), (5, 5), (3, 3), (3, 3)]).tolist())
    P, Q = (int(places) for places in rng.integers(4, 24, 2))
    C, F = int(rng.integers(1, 40)), int(rng.choice([rng.integers(1, 10), rng.integers(10, 41)]))
    shapes = Shapes(int(rng.integers(1, 4)), C, P + size[0] - 1, Q + size[1] - 1, F, size)
    x, w, b, _ = drawn(shapes, 0, "float32")
    y = channels_last.toom_cook_forward(x, w, b, (0, 0))
    yield f"Toom-Cook {shapes}", y
    yield f"Toom-Cook, pooled {shapes}", channels_last.toom_cook_forward(x, w, b, (0, 0), rectified=True, pools=True)
    rows = np.empty((len(y), y[0].size), np.float32)
    flatten_forward(channels_last.channels_last(y), rows)
    yield f"flatten {shapes.output}", rows


def plain_convolution_results(rng):
    case = plain_convolutions.drawn_at_random(int(rng.integers(2**31)))
    yield f"plain convolution {case.conv} {len(case.x), case.tile}", tuple(plain_convolutions.by_stage(case))


def norm_results(rng, dtype):
    N, K, D, E = (int(size) for size in rng.integers(1, 300, 4))
    slots, inputs, deltas = (rng.standard_normal(size).astype(dtype) for size in ((N, K), (N, D), (N, E)))
    squared_norms = np.zeros((N, 2))
    norms.slot_squared_norms(slots, K // 3, K, squared_norms, 0)
    norms.factor_squared_norms(inputs, deltas, squared_norms, 1)
    yield f"norms {N, K, D, E, dtype}", squared_norms


def noise_results(rng, dtype):
    size = int(rng.integers(1, 1500))
    words = rng.integers(0, 2**64, size + size % 2, np.uint64)
    noisy = np.empty(size, dtype)
    add_gaussian_noise(words, 1.5, rng.standard_normal(size).astype(dtype), noisy)
    yield f"noise {size, dtype}", noisy
    blocks = np.empty((2, 16, chacha20.WIDTH), np.uint32)
    chacha20.chacha20(rng.integers(0, 2**32, 8, np.uint32), blocks)
    yield "ChaCha20", blocks


def adam_results(rng):
    size = int(rng.integers(1, 100))
    gradient, m, w = rng.standard_normal((3, size)).astype(np.float32)
    v = np.square(m)
    coefficients = np.array([1 / 32, 3e-3, 0.9, 0.1, 0.999, 1e-3, 1e-8, 0.9999, 1.5], np.float32)
    adam_in_place(gradient, coefficients, m, v, w)
    yield f"Adam {size}", (m, v, w)


def rule_results(rng):
    for rule, row in ((Rule.SGD, [1 / 32, 0.1, 0.9, 0.01, 1, 0.9]), (Rule.AVERAGE, [1 / 8, 0.1])):
        gradient, m, w = rng.standard_normal((3, int(rng.integers(1, 100)))).astype(np.float32)
        apply_in_place(rule, gradient, np.array(row, np.float32), m, w)
        yield f"{rule.name} {gradient.size}", (m, w)


def normalisation_results(rng):
    """Yield what group, batch and layer normalisation compute, each with a ReLU and without, and gradients."""
    N, C, P, G = (int(rng.integers(1, last)) for last in (7, 20, 90, 4))
    C *= G
    D, rows, rectified = C * P, int(rng.integers(1, 4)), bool(rng.integers(0, 2))
    with_slack = [np.zeros(N * D + 16, np.float32) for _ in range(4)]
    x, dy, y, dx = (numbers[: N * D].reshape(N, D) for numbers in with_slack)
    x[:], dy[:] = rng.standard_normal((2, N, D))
    w, b = rng.standard_normal((2, C)).astype(np.float32)
    eps = np.array([1e-5], np.float32)
    for groups in (G, 0):
        results = normalisation.results(x, dy, w, b, eps, groups, rows, rectified=rectified)
        yield f"normalisation {N, C, P, groups, rows, rectified}", results
    w, b = rng.standard_normal((2, D)).astype(np.float32)
    mean, inverse = np.zeros((2, N, 1), np.float32)
    slots = np.zeros((-(-N // rows), 2 * D), np.float32)
    layer_normalisation.layer_norm_forward(x, w, b, eps, mean, inverse, y)
    layer_normalisation.layer_norm_backward(x, dy, w, mean, inverse, C, rows, slots, 0, D, dx)
    yield f"layer normalisation {N, C, P, rows}", (y.copy(), slots, dx.copy())
    a, b = (numbers.reshape(N, 1, P, C) for numbers in (x, dy))
    total, gradient = np.zeros((N, 3, P + 2, C), np.float32), np.zeros_like(a)
    residual.add_branches(a, b, (0, 0), rectified, (1, 1), total)
    residual.add_branch_gradients(a, b, rectified, total, (1, 1), gradient)
    yield f"residual {N, C, P, rectified}", (total, gradient)


def activation_results(rng):
    x = (4 * rng.standard_normal(int(rng.integers(1, 400)))).astype(np.float32)
    y, d = np.empty((2, x.size), np.float32)
    for activation in ACTIVATIONS:
        activation(x, y, d)
        yield f"{activation.__name__} {x.size}", (y.copy(), d.copy())
    activations.leaky_relu_forward(x, np.array([0.01], np.float32), y, d)
    yield f"leaky ReLU {x.size}", (y, d)


def example_results(rng):
    C, H, W, N, E = (
        int(rng.integers(1, 5)),
        *(int(size) for size in rng.integers(1, 40, 2)),
        6,
        int(rng.integers(1, 30)),
    )
    images = rng.integers(0, 256, (N, C, H, W)).astype(np.uint8)
    examples, key, fill = np.arange(N), np.uint64(rng.integers(2**63)), np.full(C, 7.5, np.float32)
    changed, mixed = np.empty((2, N, C, H, W), np.float32)
    settings = (True, True), (H // 3, W // 3), (0.7, 0.9), (0.0, 255.0), 0.5, (0.1, 0.6), (-1.0, 1.0)
    change_pixels(images, examples, examples, key, *settings, fill, changed)
    yield f"changes of pixels {C, H, W}", changed
    draws = np.empty(N, np.int64), np.empty(N), np.empty(N), np.empty((N, 4), np.int64)
    draw_mixing(key, examples, N, (0.5, 0.5), (0.3, 1.2), (H, W), *draws)
    mix(changed, examples, draws[0], *draws[2:], mixed)
    yield f"mixing {C, H, W}", (*draws, mixed)
    logits, labels = rng.standard_normal((N, E)).astype(np.float32), rng.integers(0, E, (2, N))
    results = np.empty(N), np.empty(N, np.int64), np.empty(N), np.empty_like(logits)
    softmax_soft_cross_entropy(logits, *labels, draws[1], 0.1, *results)
    yield f"soft cross-entropy {N, E}", results


def main():
    load((*FAST_KERNELS, chacha20.chacha20, change_pixels, draw_mixing, mix, softmax_soft_cross_entropy), "float32")
    for dtype in ("float32", "float64"):
        load((norms.slot_squared_norms, norms.factor_squared_norms, add_gaussian_noise), dtype)
    rng = np.random.default_rng(0)
    digests = {}
    for repetition in range(40):
        dtype = ("float32", "float64")[repetition % 2]
        for results in (
            *(dense_results(rng), convolution_results(rng), norm_results(rng, dtype), adam_results(rng)),
            *(toom_cook_results(rng), rule_results(rng), plain_convolution_results(rng), normalisation_results(rng)),
            *(activation_results(rng), example_results(rng), noise_results(rng, dtype)),
        ):
            for name, arrays in results:
                digest = hashlib.sha256()
                for array in arrays if isinstance(arrays, tuple) else (arrays,):
                    digest.update(np.ascontiguousarray(array + array.dtype.type(0)))  # 0 and -0 count as equal
                digests[f"{repetition}: {name}"] = digest.hexdigest()
    print(json.dumps(digests))


if __name__ == "__main__":
    main()
