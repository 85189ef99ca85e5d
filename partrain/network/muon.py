"""Muon: momentum, orthogonalised by Newton-Schulz iterations.

The matrix products are kernels with one order of each sum, called one after the other, so the bits do not depend on the
number of threads. NumPy only adds and multiplies element by element, which is exactly rounded.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024),
https://kellerjordan.github.io/posts/muon/, in the form of `torch.optim.Muon`, but in the network's dtype throughout:
PyTorch iterates in bfloat16.

Shapes: F, K rows and columns of a matrix: filters or outputs, and all inputs of one of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import dense, loops, norms
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.update_rules import SMALLEST_MOMENT

Array = NDArray[Any]

# X = a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X takes singular values between 0 and 1 close to 1.
A, B, C = 3.4445, -4.775, 2.0315
ITERATIONS = 5
EPS = 1e-7


def num_multiply_adds(shape: tuple[int, ...]) -> int:
    """Return the number of multiply-adds in the products of one update of a parameter."""
    first, others = shape[0], math.prod(shape[1:])
    short, long = min(first, others), max(first, others)
    return ITERATIONS * short * short * (2 * long + short)


class Muon:
    """Updates matrices.

    Parameters
    ----------
    kernels : "fast" or "loops".
    """

    def __init__(self, kernels: str) -> None:
        self._is_fast = kernels == "fast"
        _, self._multiply, _ = self.kernels(kernels)

    @staticmethod
    def kernels(kernels: str) -> tuple[Kernel, Kernel, Kernel]:
        """Return the kernels that an update calls: for X·Xᵀ, for X·Y, and for a squared norm."""
        products = dense if kernels == "fast" else loops
        return products.dense_forward, products.dense_backward_input, norms.slot_squared_norms

    def update(
        self,
        gradient_sum_FK: Array,
        scale: float,
        lr: float,
        momentum: float,
        decay: float,
        is_nesterov: bool,
        momentum_FK: Array,
        parameters_FK: Array,
    ) -> None:
        """Make one step.

        With g = gradient_sum · scale and u the momentum:
            u = momentum·u + (1-momentum)·g;   o = orthogonalised u; Nesterov: of momentum·u + (1-momentum)·g
            w = w·decay - lr · sqrt(max(1, F/K)) · o
        where u becomes 0 below SMALLEST_MOMENT.

        Parameters
        ----------
        gradient_sum_FK : sum of the examples' gradients; read.
        scale : 1 / batch size.
        decay : 1 - lr · weight_decay.
        momentum_FK, parameters_FK : u and w; read and written.
        """
        number = parameters_FK.dtype.type
        F, K = parameters_FK.shape
        g_FK = number(1 - momentum) * (gradient_sum_FK * number(scale))
        momentum_FK *= number(momentum)
        momentum_FK += g_FK
        momentum_FK[np.abs(momentum_FK) < SMALLEST_MOMENT] = 0
        direction_FK = number(momentum) * momentum_FK + g_FK if is_nesterov else momentum_FK
        step = number(lr * math.sqrt(max(1.0, F / K)))
        parameters_FK *= number(decay)
        parameters_FK -= step * self.orthogonalised(direction_FK)

    def orthogonalised(self, x_FK: Array) -> Array:
        """Return the matrix that Newton-Schulz iterations make of `x_FK`: singular values of about 1."""
        F, K = x_FK.shape
        squared_norm = np.empty((1, 1))
        norms.slot_squared_norms(np.ascontiguousarray(x_FK).reshape(1, -1), 0, x_FK.size, squared_norm, 0)
        number = x_FK.dtype.type
        x = np.ascontiguousarray(x_FK.T if F > K else x_FK) / number(max(math.sqrt(squared_norm[0, 0]), EPS))
        product = np.empty_like(x)
        gram, polynomial = (np.empty((len(x), len(x)), x.dtype) for _ in range(2))
        for _ in range(ITERATIONS):
            self._multiply_by_transpose(x, gram)
            self._multiply_by_transpose(gram, polynomial)
            polynomial *= number(C)
            gram *= number(B)
            polynomial += gram
            self._multiply(polynomial, x, product)
            x *= number(A)
            x += product
        return np.ascontiguousarray(x.T) if F > K else x

    def _multiply_by_transpose(self, x: Array, y: Array) -> None:
        """Write X·Xᵀ to `y`."""
        no_bias = np.zeros(len(x), x.dtype)
        if self._is_fast:
            dense.dense_forward(x, x, no_bias, False, y)
        else:
            loops.dense_forward(x, x, no_bias, y)
