"""Normalisation as the loops of its formulas: the definition that the fast kernels are tested against.

    z = (x - mean) / sqrt(variance + eps),   y = z · w + b

The variance is the biased one: the mean of (x - mean)². With dz = dy · w, and means over the numbers that share their
statistics:

    dx = (dz - mean of dz - z · mean of (dz · z)) / sqrt(variance + eps)
    dw = sum of dy · z,   db = sum of dy

Sources: Ioffe, Szegedy, arXiv 1502.03167, section 3; Wu, He, arXiv 1803.08494, section 3.1; Ba, Kiros, Hinton, arXiv
1607.06450, section 3.

Shapes: N examples; C channels; P places; G groups of channels; D numbers of an example. Arrays are C-contiguous, of one
floating-point type. Outputs come last and are written in place.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel


@kernel("void({float}[:,:,::1], {float}[:,::1], {float}[:,::1])")
def group_statistics(x_NCP, mean_NG, variance_NG):
    """Write mean and biased variance of each group of C/G channels, for each example."""
    N, C, P = x_NCP.shape
    G = mean_NG.shape[1]
    size = C // G
    for n in range(N):
        for g in range(G):
            total = x_NCP.dtype.type(0)
            for c in range(g * size, (g + 1) * size):
                for p in range(P):
                    total += x_NCP[n, c, p]
            mean = total / x_NCP.dtype.type(size * P)
            total = x_NCP.dtype.type(0)
            for c in range(g * size, (g + 1) * size):
                for p in range(P):
                    total += (x_NCP[n, c, p] - mean) * (x_NCP[n, c, p] - mean)
            mean_NG[n, g] = mean
            variance_NG[n, g] = total / x_NCP.dtype.type(size * P)


@kernel("void({float}[:,:,::1], {float}[:,::1])")
def channel_means(x_NCP, mean_1C):
    """Write the mean of each channel over all examples and places."""
    N, C, P = x_NCP.shape
    for c in range(C):
        total = x_NCP.dtype.type(0)
        for n in range(N):
            for p in range(P):
                total += x_NCP[n, c, p]
        mean_1C[0, c] = total / x_NCP.dtype.type(N * P)


@kernel("void({float}[:,:,::1], {float}[:,::1], {float}[:,::1])")
def channel_variances(x_NCP, mean_1C, variance_1C):
    """Write the biased variance of each channel over all examples and places."""
    N, C, P = x_NCP.shape
    for c in range(C):
        total = x_NCP.dtype.type(0)
        for n in range(N):
            for p in range(P):
                total += (x_NCP[n, c, p] - mean_1C[0, c]) * (x_NCP[n, c, p] - mean_1C[0, c])
        variance_1C[0, c] = total / x_NCP.dtype.type(N * P)


_STATISTICS = "{float}[:,::1], {float}[:,::1], float64"


@kernel(f"void({{float}}[:,:,::1], {{float}}[::1], {{float}}[::1], {_STATISTICS}, {{float}}[:,:,::1])")
def normalise_forward(x_NCP, w_C, b_C, mean_SG, variance_SG, eps, y_NCP):
    """y = z · w + b. Example n has the statistics of row n, or of the only row."""
    N, C, P = x_NCP.shape
    S, G = mean_SG.shape
    size = C // G
    for n in range(N):
        s = n if S > 1 else 0
        for c in range(C):
            mean = mean_SG[s, c // size]
            inverse = x_NCP.dtype.type(1 / np.sqrt(np.float64(variance_SG[s, c // size]) + eps))
            for p in range(P):
                y_NCP[n, c, p] = (x_NCP[n, c, p] - mean) * inverse * w_C[c] + b_C[c]


@kernel(
    f"void({{float}}[:,:,::1], {{float}}[:,:,::1], {_STATISTICS}, {{float}}[::1], {{float}}[::1])",
)
def normalise_backward_weights(x_NCP, dy_NCP, mean_SG, variance_SG, eps, dw_C, db_C):
    """Add the gradients of w and b of N examples, in their order; the caller zeroes `dw_C` and `db_C`."""
    N, C, P = x_NCP.shape
    S, G = mean_SG.shape
    size = C // G
    for n in range(N):
        s = n if S > 1 else 0
        for c in range(C):
            mean = mean_SG[s, c // size]
            inverse = x_NCP.dtype.type(1 / np.sqrt(np.float64(variance_SG[s, c // size]) + eps))
            for p in range(P):
                dw_C[c] += dy_NCP[n, c, p] * (x_NCP[n, c, p] - mean) * inverse
                db_C[c] += dy_NCP[n, c, p]


@kernel(f"void({{float}}[:,:,::1], {{float}}[:,:,::1], {{float}}[::1], {_STATISTICS}, {{float}}[:,:,::1])")
def normalise_backward_input(x_NCP, dy_NCP, w_C, mean_SG, variance_SG, eps, dx_NCP):
    """Compute the gradient at the input of all examples. Overwrites `dx_NCP`."""
    N, C, P = x_NCP.shape
    S, G = mean_SG.shape
    size = C // G
    examples = N // S  # that share statistics
    for s in range(S):
        for g in range(G):
            mean = mean_SG[s, g]
            inverse = x_NCP.dtype.type(1 / np.sqrt(np.float64(variance_SG[s, g]) + eps))
            of_dz, of_product = x_NCP.dtype.type(0), x_NCP.dtype.type(0)
            for n in range(s * examples, (s + 1) * examples):
                for c in range(g * size, (g + 1) * size):
                    for p in range(P):
                        dz = dy_NCP[n, c, p] * w_C[c]
                        of_dz += dz
                        of_product += dz * (x_NCP[n, c, p] - mean) * inverse
            count = x_NCP.dtype.type(examples * size * P)
            for n in range(s * examples, (s + 1) * examples):
                for c in range(g * size, (g + 1) * size):
                    for p in range(P):
                        z = (x_NCP[n, c, p] - mean) * inverse
                        dz = dy_NCP[n, c, p] * w_C[c]
                        dx_NCP[n, c, p] = (dz - of_dz / count - z * (of_product / count)) * inverse


@kernel("void({float}[:,::1], {float}[:,::1], {float}[:,::1])")
def example_statistics(x_ND, mean_N1, variance_N1):
    """Write mean and biased variance of each example."""
    N, D = x_ND.shape
    for n in range(N):
        total = x_ND.dtype.type(0)
        for d in range(D):
            total += x_ND[n, d]
        mean = total / x_ND.dtype.type(D)
        total = x_ND.dtype.type(0)
        for d in range(D):
            total += (x_ND[n, d] - mean) * (x_ND[n, d] - mean)
        mean_N1[n, 0] = mean
        variance_N1[n, 0] = total / x_ND.dtype.type(D)


@kernel(f"void({{float}}[:,::1], {{float}}[::1], {{float}}[::1], {_STATISTICS}, {{float}}[:,::1])")
def layer_norm_forward(x_ND, w_D, b_D, mean_N1, variance_N1, eps, y_ND):
    """y = z · w + b, with a factor and a summand for each number of an example."""
    N, D = x_ND.shape
    for n in range(N):
        inverse = x_ND.dtype.type(1 / np.sqrt(np.float64(variance_N1[n, 0]) + eps))
        for d in range(D):
            y_ND[n, d] = (x_ND[n, d] - mean_N1[n, 0]) * inverse * w_D[d] + b_D[d]


@kernel(f"void({{float}}[:,::1], {{float}}[:,::1], {_STATISTICS}, {{float}}[::1], {{float}}[::1])")
def layer_norm_backward_weights(x_ND, dy_ND, mean_N1, variance_N1, eps, dw_D, db_D):
    """Add the gradients of w and b of N examples, in their order; the caller zeroes `dw_D` and `db_D`."""
    N, D = x_ND.shape
    for n in range(N):
        inverse = x_ND.dtype.type(1 / np.sqrt(np.float64(variance_N1[n, 0]) + eps))
        for d in range(D):
            dw_D[d] += dy_ND[n, d] * (x_ND[n, d] - mean_N1[n, 0]) * inverse
            db_D[d] += dy_ND[n, d]


@kernel(f"void({{float}}[:,::1], {{float}}[:,::1], {{float}}[::1], {_STATISTICS}, {{float}}[:,::1])")
def layer_norm_backward_input(x_ND, dy_ND, w_D, mean_N1, variance_N1, eps, dx_ND):
    """Compute the gradient at the input. Overwrites `dx_ND`."""
    N, D = x_ND.shape
    for n in range(N):
        inverse = x_ND.dtype.type(1 / np.sqrt(np.float64(variance_N1[n, 0]) + eps))
        of_dz, of_product = x_ND.dtype.type(0), x_ND.dtype.type(0)
        for d in range(D):
            dz = dy_ND[n, d] * w_D[d]
            of_dz += dz
            of_product += dz * (x_ND[n, d] - mean_N1[n, 0]) * inverse
        for d in range(D):
            z = (x_ND[n, d] - mean_N1[n, 0]) * inverse
            dz = dy_ND[n, d] * w_D[d]
            dx_ND[n, d] = (dz - of_dz / x_ND.dtype.type(D) - z * (of_product / x_ND.dtype.type(D))) * inverse
