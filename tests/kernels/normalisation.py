"""Batch and group normalisation by the fast kernels, forward and backward.

Shapes: N rows; C channels; P places; D numbers of a row.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels import channel_normalisation, normalisation_gradients

KERNELS = (
    channel_normalisation.add_moments, channel_normalisation.finish_batch_moments,
    channel_normalisation.finish_group_moments, channel_normalisation.normalise,
    normalisation_gradients.add_gradient_sums, normalisation_gradients.finish_batch_gradient,
    normalisation_gradients.finish_group_gradient, normalisation_gradients.normalise_backward_input,
    normalisation_gradients.write_parameter_gradients,
)  # fmt: skip


def results(x_ND, dy_ND, w_C, b_C, eps_1, groups, tile, *, rectified):
    """Return the output, the slots of tiles with the gradients of w and b, and the gradient at the input.

    All have `groups` groups of channels in each row; 0: the rows of a tile share their statistics. Rows are followed by
    the numbers that a vector may read.
    """
    (N, D), C = x_ND.shape, len(w_C)
    P, rows, numbers = D // C, 1 if groups else tile, np.arange(len(x_ND))
    y, dx = (np.zeros(N * D + 16, np.float32)[: N * D].reshape(N, 1, P, C) for _ in range(2))
    mean, squares, inverse, plain, scaled, *coefficients = np.zeros((8, N, channel_normalisation.padded(C)), np.float32)
    slots = np.zeros((-(-N // tile), 2 * C), np.float32)
    channel_normalisation.add_moments(x_ND, numbers, C, rows, mean, squares)
    if groups:
        channel_normalisation.finish_group_moments(P, C, groups, eps_1, mean, squares, inverse)
    else:
        channel_normalisation.finish_batch_moments(N, rows, P, C, eps_1, squares, inverse)
    channel_normalisation.normalise(x_ND, numbers, w_C, b_C, rows, rectified, mean, inverse, (0, 0), y)
    operands = x_ND, dy_ND, numbers, w_C, b_C, rows, rectified, mean, inverse
    normalisation_gradients.add_gradient_sums(*operands, plain, scaled)
    normalisation_gradients.write_parameter_gradients(N, rows, tile, inverse, plain, scaled, slots, C, 0, C)
    sums = inverse, plain, scaled
    if groups:
        normalisation_gradients.finish_group_gradient(P, groups, w_C, *sums, *coefficients)
    else:
        normalisation_gradients.finish_batch_gradient(N, rows, P, w_C, *sums, *coefficients)
    normalisation_gradients.normalise_backward_input(*operands, *coefficients, (0, 0), dx)
    return y, slots, dx
