"""The rules by which an update changes parameters, as loops: kernels.update_pieces is tested against them.

Shapes: K parameters. Arrays are C-contiguous, of one floating-point type. What is written comes last.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.update_rules import SMALLEST_MOMENT


@inlined
def kept(moment):
    """Return a moment, but 0 if it is nearer to 0 than SMALLEST_MOMENT; NaN stays NaN."""
    return moment - moment if abs(moment) < SMALLEST_MOMENT else moment  # of the same type


@kernel(
    "void({float}[::1], {float}, {float}, {float}, {float}, {float}, {float}, {float}, {float}, {float},"
    " {float}[::1], {float}[::1], {float}[::1])"
)
def adam_update(
    gradient_sum_K,
    scale,
    step_size,
    beta1,
    one_minus_beta1,
    beta2,
    one_minus_beta2,
    eps,
    decay,
    root_scale,
    first_moment_K,
    second_moment_K,
    parameters_K,
):
    """Update the parameters by one step of Adam with decoupled weight decay.

    With g = gradient_sum · scale:
        m = beta1·m + (1-beta1)·g;   v = beta2·v + (1-beta2)·g²
        w = w·decay - step_size · m / (sqrt(v)·root_scale + eps)
    where m and v become 0 below SMALLEST_MOMENT.

    Parameters
    ----------
    gradient_sum_K : sum of the examples' gradients; read.
    one_minus_beta1, one_minus_beta2 : computed in float64; the difference of float32 numbers has lost digits.
    scale : 1 / batch size.
    decay : 1 - lr · weight_decay.
    step_size, root_scale : lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), t the step counted from 1.
    first_moment_K, second_moment_K, parameters_K : m, v, w; read and written.

    Sources: Kingma, Ba, arXiv 1412.6980, algorithm 1; Loshchilov, Hutter, arXiv 1711.05101, algorithm 2.
    """
    for k in range(gradient_sum_K.size):
        g = gradient_sum_K[k] * scale
        m = kept(beta1 * first_moment_K[k] + one_minus_beta1 * g)
        v = kept(beta2 * second_moment_K[k] + one_minus_beta2 * g * g)
        first_moment_K[k] = m
        second_moment_K[k] = v
        parameters_K[k] = parameters_K[k] * decay - step_size * m / (np.sqrt(v) * root_scale + eps)


@kernel(
    "void({float}[::1], {float}, {float}, {float}, {float}, {float}, {float}, {float}[::1], {float}[::1])",
)
def sgd_update(
    gradient_sum_K, scale, lr, momentum, weight_decay, share_of_gradient, share_of_velocity, velocity_K, parameters_K
):
    """Update the parameters by one step of stochastic gradient descent, as PyTorch's SGD with dampening 0.

    With g = gradient_sum · scale + weight_decay · w:
        u = momentum·u + g;   w = w - lr · (share_of_gradient · g + share_of_velocity · u)
    where u, if there is momentum, becomes 0 below SMALLEST_MOMENT.

    Parameters
    ----------
    gradient_sum_K : sum of the examples' gradients; read.
    scale : 1 / batch size.
    share_of_gradient, share_of_velocity : 0 and 1; for Nesterov's momentum 1 and `momentum`.
    velocity_K : u; read and written, but not if `momentum` is 0.
    parameters_K : w; read and written.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in the
    form of PyTorch, which does not multiply u by the learning rate.
    """
    for k in range(gradient_sum_K.size):
        g = gradient_sum_K[k] * scale + weight_decay * parameters_K[k]
        u = g
        if momentum != 0:
            u = kept(momentum * velocity_K[k] + g)
            velocity_K[k] = u
        parameters_K[k] = parameters_K[k] - lr * (share_of_gradient * g + share_of_velocity * u)


@kernel("void({float}[::1], {float}, {float}, {float}[::1])")
def average_update(sum_K, scale, momentum, average_K):
    """Move running averages towards the newest values: a = a + momentum · (sum · scale - a)."""
    for k in range(sum_K.size):
        average_K[k] = average_K[k] + momentum * (sum_K[k] * scale - average_K[k])
