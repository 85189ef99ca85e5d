"""The loss of targets with more than one class, as the loops of its formula; see kernels.loops.

Shapes: N examples; E classes.
"""

from __future__ import annotations

import math

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.elementary_inlined import exp, log


@kernel(
    "void({float}[:,::1], int64[::1], int64[::1], float64[::1], float64, float64[::1], int64[::1], float64[::1],"
    " {float}[:,::1])"
)
def softmax_soft_cross_entropy(
    logits_NE, labels_N, partner_labels_N, shares_N, smoothing, loss_N, predicted_N, confidence_N, dlogits_NE
):
    """Compute what `loops.softmax_cross_entropy` computes, for targets with more than one class.

    With t the label, u the label of the partner, λ the share of t, s the smoothing, and the target

        q[e] = (1-s) · (λ·(1 if e = t else 0) + (1-λ)·(1 if e = u else 0)) + s / E

    loss = log(sum over e of exp(z[e] - max z)) - sum over e of  q[e] · (z[e] - max z)
    dz[e] = exp(z[e] - max z) / sum - q[e]

    So the loss is (1-s) · (λ · CE(t) + (1-λ) · CE(u)) + s/E · (sum over e of CE(e)), as the targets add up to 1.
    Computed in float64.

    Parameters
    ----------
    logits_NE : z; read.
    labels_N, partner_labels_N, shares_N : t, u, λ; read.
    smoothing : s.
    loss_N, predicted_N, confidence_N, dlogits_NE : as those of `loops.softmax_cross_entropy`; overwritten.

    Sources: Szegedy et al., arXiv 1512.00567, section 7 (label smoothing); `torch.nn.CrossEntropyLoss`.
    """
    N, E = logits_NE.shape
    powers_E = np.empty(E)
    for n in range(N):
        best = 0
        for e in range(1, E):
            if logits_NE[n, e] > logits_NE[n, best] or math.isnan(logits_NE[n, e]):
                best = e
        highest = np.float64(logits_NE[n, best])
        total, sum_of_logits = 0.0, 0.0
        for e in range(E):
            logit = np.float64(logits_NE[n, e]) - highest
            powers_E[e] = exp(logit)
            total += powers_E[e]
            sum_of_logits += logit
        label, partner_label = labels_N[n], partner_labels_N[n]
        own, other = (1 - smoothing) * shares_N[n], (1 - smoothing) * (1 - shares_N[n])
        each = smoothing / E
        for e in range(E):
            target = each
            if e == label:
                target += own
            if e == partner_label:
                target += other
            dlogits_NE[n, e] = powers_E[e] / total - target
        own_logit = np.float64(logits_NE[n, label]) - highest
        other_logit = np.float64(logits_NE[n, partner_label]) - highest
        loss_N[n] = log(total) - (own * own_logit + other * other_logit + each * sum_of_logits)
        predicted_N[n] = best
        confidence_N[n] = 1 / total
