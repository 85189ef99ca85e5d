"""Mixes training images: mixup averages an example's image with a partner's, CutMix pastes a box of the partner's.

With λ drawn from Beta(alpha, alpha), x an example's image and x' its partner's:

    mixup    x · λ + x' · (1-λ)                                 target: λ of the label, 1-λ of the partner's
    CutMix   x' in a box of H·sqrt(1-λ) x W·sqrt(1-λ), else x   target: 1-a of the label, a of the partner's,
                                                                a the share of the image that the box covers

The centre of the box is uniform in the image, and what lies outside the image is cut off. The partner is uniform in the
training set. Partner, method, λ and box are functions of the key and the example.

λ comes without rejection from two uniform numbers, with c = cos(2πv) and p = u^(1/alpha):

    λ = (1 + sign(c) · sqrt(r)) / 2,    r = (1-p)·c² / (p + (1-p)·c²)

For T = sqrt(2·alpha · (1/p - 1)) · c has Student's distribution with 2·alpha degrees of freedom, and
1/2 + T / (2·sqrt(2·alpha + T²)) has Beta(alpha, alpha).

Shapes: M images of a split; N examples; C, H, W channels, rows, columns.

Sources: Zhang et al., "mixup: beyond empirical risk minimization", arXiv 1710.09412, section 2; Yun et al., "CutMix:
regularization strategy to train strong classifiers with localizable features", arXiv 1905.04899, section 3.1; Bailey,
"Polar generation of random variates with the t-distribution", Mathematics of Computation 62 (1994) 779; Devroye,
"Random variate generation in one line of code", 1996, section 3.
"""

from __future__ import annotations

import math

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.elementary_inlined import cos_sin_pi, exp, log
from partrain.kernels.philox import below, draw_words, uniform

# The words of an example: method, u, v, partner (two words), row and column of the box' centre.
_METHOD, _U, _V, _PARTNER, _ROW, _COLUMN = 0, 1, 2, 3, 5, 6
_NUM_BLOCKS = 2


@inlined
def symmetric_beta(alpha, word_u, word_v):
    """Return a number with the distribution Beta(alpha, alpha)."""
    cosine, _ = cos_sin_pi(2 * uniform(word_v))
    p = exp(log(uniform(word_u)) / alpha)
    rest = (1 - p) * (cosine * cosine)
    # (1 - sqrt(r)) / 2, without the difference, which would lose the digits of small numbers.
    smaller = 0.5 * (p / (p + rest)) / (1 + math.sqrt(rest / (p + rest)))
    return 1 - smaller if cosine > 0 else smaller


@kernel(
    "void(uint64, int64[::1], int64, UniTuple(float64, 2), UniTuple(float64, 2), UniTuple(int64, 2),"
    " int64[::1], float64[::1], float64[::1], int64[:,::1])"
)
def draw_mixing(key, examples_N, num_train, probabilities, alphas, size, partners_N, shares_N, pixels_N, boxes_N4):
    """Draw the partner, the shares and the box of N examples.

    Parameters
    ----------
    key : the key of the random numbers; depends on seed and epoch.
    examples_N : indices of the examples in the training set; read.
    num_train : the size of the training set, below 2**32.
    probabilities : of mixup and of CutMix; with the rest, an example is not mixed, and is its own partner.
    alphas : of mixup and of CutMix.
    size : rows and columns of an image.
    partners_N : indices in the training set; overwritten.
    shares_N : the share of the example's own label in its target; overwritten.
    pixels_N : the factor of the example's own pixels outside the box; overwritten.
    boxes_N4 : first row, end of the rows, first column, end of the columns; overwritten.
    """
    words_4B = np.empty((4, _NUM_BLOCKS), np.uint32)
    words = words_4B.reshape(-1)
    H, W = size
    for n in range(examples_N.size):
        draw_words(key, examples_N[n], words_4B)
        method = uniform(words[_METHOD])
        partners_N[n], shares_N[n], pixels_N[n] = examples_N[n], 1, 1
        for k in range(4):
            boxes_N4[n, k] = 0
        if method >= probabilities[0] + probabilities[1]:
            continue
        # The upper part of num_train · (a uniform number of 64 bits).
        count = np.uint64(num_train)
        lower = np.uint64(words[_PARTNER + 1]) * count >> np.uint64(32)
        partners_N[n] = np.int64((np.uint64(words[_PARTNER]) * count + lower) >> np.uint64(32))
        cuts = method >= probabilities[0]
        share = symmetric_beta(alphas[1] if cuts else alphas[0], words[_U], words[_V])
        if not cuts:
            shares_N[n] = pixels_N[n] = share
            continue
        side = math.sqrt(1 - share)
        rows, columns = int(H * side), int(W * side)
        top, left = below(words[_ROW], H) - rows // 2, below(words[_COLUMN], W) - columns // 2
        boxes_N4[n, 0], boxes_N4[n, 1] = max(top, 0), min(top + rows, H)
        boxes_N4[n, 2], boxes_N4[n, 3] = max(left, 0), min(left + columns, W)
        covered = (boxes_N4[n, 1] - boxes_N4[n, 0]) * (boxes_N4[n, 3] - boxes_N4[n, 2])
        shares_N[n] = 1 - covered / (H * W)


_ARGUMENTS = "int64[::1], int64[::1], float64[::1], int64[:,::1], float32[:,:,:,::1]"


@kernel(f"void(uint8[:,:,:,::1], {_ARGUMENTS})", f"void(float32[:,:,:,::1], {_ARGUMENTS})")
def mix(images_MCHW, places_N, partners_N, pixels_N, boxes_N4, mixed_NCHW):
    """Write the mixed images of N examples, computed in float64.

    Parameters
    ----------
    images_MCHW : raw pixels; read.
    places_N, partners_N : indices among them of the examples and of their partners; read.
    pixels_N, boxes_N4 : as `draw_mixing` wrote them; read.
    mixed_NCHW : raw pixels; overwritten.
    """
    N, C, H, _ = mixed_NCHW.shape
    for n in range(N):
        share = pixels_N[n]
        first_i, end_i, first_j, end_j = boxes_N4[n, 0], boxes_N4[n, 1], boxes_N4[n, 2], boxes_N4[n, 3]
        for c in range(C):
            own_HW, other_HW = images_MCHW[places_N[n], c], images_MCHW[partners_N[n], c]
            for i in range(H):
                own_W, other_W, y_W = own_HW[i], other_HW[i], mixed_NCHW[n, c, i]
                for j in range(y_W.size):
                    y_W[j] = share * own_W[j] + (1 - share) * other_W[j]
                if first_i <= i < end_i:
                    for j in range(first_j, end_j):
                        y_W[j] = other_W[j]
