"""A convolution as the loops of its formula: the definition that the fast kernels are tested against.

Shapes: N examples; C, H, W input channels, rows, columns; F filters; G channels of a group; R, S filter rows, columns;
P, Q output rows, columns. kernels.loops says what the arrays are like.

With k groups, G = C/k, and filter f sees the channels of its group, from `base` = (f // (F/k)) · G on. `step` is the
stride, `pad` the padding, `gap` the dilation: rows, columns. x is 0 outside its rows and columns.
"""

from __future__ import annotations

from partrain.kernels.compiler.flags import kernel

_IMAGES, _PAIR = "{float}[:,:,:,::1]", "UniTuple(int64, 2)"
_GEOMETRY = f"{_PAIR}, {_PAIR}, {_PAIR}, int64"


@kernel(f"void({_IMAGES}, {_IMAGES}, {{float}}[::1], {_GEOMETRY}, {_IMAGES})")
def conv2d_forward(x_NCHW, w_FGRS, b_F, step, pad, gap, groups, y_NFPQ):
    """Convolve, without flipping the filter.

    y[n,f,p,q] = b[f] + sum over c,r,s of  x[n, base+c, p·step+r·gap-pad, q·step+s·gap-pad] · w[f,c,r,s]
    """
    N, F, P, Q = y_NFPQ.shape
    _, G, R, S = w_FGRS.shape
    _, _, H, W = x_NCHW.shape
    for n in range(N):
        for f in range(F):
            base = f // (F // groups) * G
            for p in range(P):
                for q in range(Q):
                    total = b_F[f]
                    for c in range(G):
                        for r in range(R):
                            for s in range(S):
                                i = p * step[0] + r * gap[0] - pad[0]
                                j = q * step[1] + s * gap[1] - pad[1]
                                if 0 <= i < H and 0 <= j < W:
                                    total += x_NCHW[n, base + c, i, j] * w_FGRS[f, c, r, s]
                    y_NFPQ[n, f, p, q] = total


@kernel(f"void({_IMAGES}, {_IMAGES}, {_GEOMETRY}, {_IMAGES})")
def conv2d_backward_input(dy_NFPQ, w_FGRS, step, pad, gap, groups, dx_NCHW):
    """Compute the gradient at a convolution's input. Overwrites `dx_NCHW`.

    dx[n,base+c,i,j] = sum over all f,p,q,r,s with i = p·step+r·gap-pad, j = q·step+s·gap-pad
                       of  dy[n,f,p,q] · w[f,c,r,s]
    """
    N, F, P, Q = dy_NFPQ.shape
    _, G, R, S = w_FGRS.shape
    _, _, H, W = dx_NCHW.shape
    dx_NCHW[:] = 0
    for n in range(N):
        for f in range(F):
            base = f // (F // groups) * G
            for p in range(P):
                for q in range(Q):
                    for c in range(G):
                        for r in range(R):
                            for s in range(S):
                                i = p * step[0] + r * gap[0] - pad[0]
                                j = q * step[1] + s * gap[1] - pad[1]
                                if 0 <= i < H and 0 <= j < W:
                                    dx_NCHW[n, base + c, i, j] += dy_NFPQ[n, f, p, q] * w_FGRS[f, c, r, s]


@kernel(f"void({_IMAGES}, {_IMAGES}, {_GEOMETRY}, {_IMAGES}, {{float}}[::1])")
def conv2d_backward_weights(x_NCHW, dy_NFPQ, step, pad, gap, groups, dw_FGRS, db_F):
    """Add the filter gradient of N examples, in their order, into `dw_FGRS` and `db_F`.

    dw[f,c,r,s] += sum over n,p,q of  x[n, base+c, p·step+r·gap-pad, q·step+s·gap-pad] · dy[n,f,p,q]
    db[f]       += sum over n,p,q of  dy[n,f,p,q]

    Both are accumulated in place; the caller zeroes them. `db_F` may be empty: there is no bias.
    """
    N, F, P, Q = dy_NFPQ.shape
    _, G, R, S = dw_FGRS.shape
    _, _, H, W = x_NCHW.shape
    for n in range(N):
        for f in range(F):
            base = f // (F // groups) * G
            for p in range(P):
                for q in range(Q):
                    if db_F.size > 0:
                        db_F[f] += dy_NFPQ[n, f, p, q]
                    for c in range(G):
                        for r in range(R):
                            for s in range(S):
                                i = p * step[0] + r * gap[0] - pad[0]
                                j = q * step[1] + s * gap[1] - pad[1]
                                if 0 <= i < H and 0 <= j < W:
                                    dw_FGRS[f, c, r, s] += x_NCHW[n, base + c, i, j] * dy_NFPQ[n, f, p, q]
