"""Converts layouts: images to channels last with a border, and channels last to rows.

Shapes: M images of a split; N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel

from .simd.transposition import transpose
from .simd.vectors import element, store_number

_OUTPUT = "UniTuple(int64, 2), float32[:,:,:,::1]"


@kernel(
    f"void(uint8[:,:,:,::1], int64[::1], float32[::1], float32[::1], {_OUTPUT})",
    f"void(float32[:,:,:,::1], int64[::1], float32[::1], float32[::1], {_OUTPUT})",
)
def gather_normalised(images_MCHW, indices_N, mean_C, inverse_std_C, border, x_NHWC):
    """Copy the examples `indices_N` of all images, as (pixel - mean) · inverse_std, into arrays with a border.

    The rows and columns of the border, at each side of `x_NHWC`, keep their value, zero.
    """
    _, C, H, W = images_MCHW.shape
    _, bordered_H, bordered_W, _ = x_NHWC.shape
    for n in range(indices_N.size):
        image_CHW = images_MCHW[indices_N[n]]
        for i in range(H):
            row = ((n * bordered_H + i + border[0]) * bordered_W + border[1]) * C
            for c in range(C):
                image_row = (c * H + i) * W
                mean, inverse_std = mean_C[c], inverse_std_C[c]
                if C == 1:  # LLVM computes several pixels at once if their places in memory are neighbours
                    for j in range(W):
                        pixel = np.float32(element(image_CHW, image_row + j))
                        store_number(x_NHWC, row + j, (pixel - mean) * inverse_std)
                else:
                    for j in range(W):
                        pixel = np.float32(element(image_CHW, image_row + j))
                        store_number(x_NHWC, row + j * C + c, (pixel - mean) * inverse_std)


@kernel("void(float32[:,:,:,::1], float32[:,::1])")
def flatten_forward(x_NHWC, y_ND):
    """Copy to rows in the order (C, H, W)."""
    N, H, W, C = x_NHWC.shape
    D = C * H * W
    for n in range(N):
        transpose(x_NHWC, n * D, H * W, C, y_ND, n * D, H * W)


@kernel("void(float32[:,::1], float32[:,:,:,::1])")
def flatten_backward_input(dy_ND, dx_NHWC):
    """Copy rows in the order (C, H, W) back to channels last."""
    N, H, W, C = dx_NHWC.shape
    for n in range(N):
        dy_CHW = dy_ND[n].reshape(C, H, W)
        for i in range(H):
            for j in range(W):
                for c in range(C):
                    dx_NHWC[n, i, j, c] = dy_CHW[c, i, j]


@kernel("void(float32[::1], float32[::1])")
def copy_numbers(x, y):
    """Copy x to y."""
    for k in range(x.size):
        store_number(y, k, element(x, k))


@kernel("void(float32[:,:,:,::1], UniTuple(int64, 2), float32[:,:,:,::1])")
def copy_into_border(x_NHWC, border, y_NHWC):
    """Copy images into arrays with a border, which keeps its value, zero."""
    N, H, W, C = x_NHWC.shape
    _, bordered_H, bordered_W, _ = y_NHWC.shape
    for n in range(N):
        for i in range(H):
            row = ((n * bordered_H + i + border[0]) * bordered_W + border[1]) * C
            for k in range(W * C):
                store_number(y_NHWC, row + k, element(x_NHWC, (n * H + i) * W * C + k))


@kernel("void(float32[:,::1], int64, int64, UniTuple(int64, 2), float32[:,:,:,::1])")
def place_gradient(d_ND, place_step, channel_step, border, dy_NPQF):
    """Copy a gradient into images with a border, which keeps its value, zero.

    That of position (p, q) and channel f is at (p·Q + q)·place_step + f·channel_step of its row, Q without the border.
    """
    N, bordered_P, bordered_Q, F = dy_NPQF.shape
    Q = bordered_Q - 2 * border[1]
    D = d_ND.shape[1]
    for n in range(N):
        for p in range(bordered_P - 2 * border[0]):
            row = ((n * bordered_P + p + border[0]) * bordered_Q + border[1]) * F
            source = n * D + p * Q * place_step
            if channel_step == 1 and place_step == F:
                for k in range(Q * F):
                    store_number(dy_NPQF, row + k, element(d_ND, source + k))
            else:
                for q in range(Q):
                    for f in range(F):
                        number = element(d_ND, source + q * place_step + f * channel_step)
                        store_number(dy_NPQF, row + q * F + f, number)


@kernel("void(float32[:,:,:,::1], int64, float32[:,:,:,::1])")
def repeat_channels(x_NHWC, times, y_NHWF):
    """Copy each channel `times` times, one after the other."""
    N, H, W, C = x_NHWC.shape
    for k in range(N * H * W * C):
        for copy in range(times):
            store_number(y_NHWF, k * times + copy, element(x_NHWC, k))


@kernel("void(float32[:,:,:,::1], int64, float32[:,:,:,::1])")
def sum_repeated_channels(dy_NHWF, times, dx_NHWC):
    """Add the gradients of the copies of each channel, in their order."""
    N, H, W, C = dx_NHWC.shape
    for k in range(N * H * W * C):
        total = element(dy_NHWF, k * times)
        for copy in range(1, times):
            total += element(dy_NHWF, k * times + copy)
        store_number(dx_NHWC, k, total)
