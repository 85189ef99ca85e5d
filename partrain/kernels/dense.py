"""Dense layers for float32, with the sums in vectors.

Shapes: N examples; D, E inputs, outputs.
"""

from __future__ import annotations

from partrain.kernels.compile_options import kernel

_TWO = "float32[:,::1]"


@kernel(f"void({_TWO}, {_TWO}, float32[::1], {_TWO})", fast_math=True)
def dense_forward(x_ND, w_ED, b_E, y_NE):
    """Multiply by the weights and add the bias; see `loops.dense_forward`.

    A row of weights is read once from memory for all examples.
    """
    N, D = x_ND.shape
    E = w_ED.shape[0]
    for e in range(E):
        w_D = w_ED[e]
        for n in range(N):
            x_D = x_ND[n]
            total = b_E[e]
            for d in range(D):
                total += w_D[d] * x_D[d]
            y_NE[n, e] = total


@kernel(f"void({_TWO}, {_TWO}, {_TWO})", fast_math=True)
def dense_backward_input(dy_NE, w_ED, dx_ND):
    """Take the gradient back to the input; see `loops.dense_backward_input`."""
    N, D = dx_ND.shape
    E = w_ED.shape[0]
    dx_ND[:] = 0
    for e in range(E):
        w_D = w_ED[e]
        for n in range(N):
            dx_D = dx_ND[n]
            delta = dy_NE[n, e]
            for d in range(D):
                dx_D[d] += delta * w_D[d]


@kernel(f"void({_TWO}, {_TWO}, {_TWO}, float32[::1])", fast_math=True)
def dense_backward_weights(x_ND, dy_NE, dw_ED, db_E):
    """Add the weight gradient of N examples; see `loops.dense_backward_weights`."""
    N, D = x_ND.shape
    E = dw_ED.shape[0]
    for e in range(E):
        dw_D = dw_ED[e]
        for n in range(N):
            x_D = x_ND[n]
            delta = dy_NE[n, e]
            db_E[e] += delta
            for d in range(D):
                dw_D[d] += delta * x_D[d]
