"""Statistics of the norms of single examples' gradients, and the gradient noise scale.

The gradient noise scale of McCandlish et al. is the variance of single gradients relative to their common mean:

    B_noise = S / |G|²      S: the trace of the covariance of single gradients; G: their true mean

For b single gradients, let m = mean |g_n|² be their mean squared norm, and M = |mean g_n|² the squared norm of the
batch's gradient. Unbiased estimates are:

    |G|² ~ (b·M - m) / (b - 1)        S ~ (m - M) / (1 - 1/b)

Both are very noisy in a single step, and a ratio of noisy numbers is biased. So each is smoothed separately over the
measured steps, and only then are they divided. A step has the weight SMOOTHING^k after k further measurements.

Source: McCandlish, Kaplan, Amodei, "An empirical model of large-batch training", arXiv 1812.06162, appendix A.1,
with a small batch of one example.

Shapes: N examples; L layers with parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from partrain.network.clipping import gradient_norms
from partrain.network.exact_mean import exact_mean

SMOOTHING = 0.95

Metrics = dict[str, float]


def norm_metrics(squared_norms_NL: NDArray[np.float64], layer_names: Sequence[str], *, by_layer: bool) -> Metrics:
    """Return mean, median, 95th percentile and maximum of the norms of N examples' gradients, by name.

    Parameters
    ----------
    squared_norms_NL : squared gradient norm of each example and layer; N is at least 1.
    layer_names : the names of the columns.
    by_layer : whether to return the statistics of each layer as well.
    """
    metrics = _summary_of(gradient_norms(squared_norms_NL), "")
    if by_layer:
        for k, name in enumerate(layer_names):
            metrics |= _summary_of(np.sqrt(squared_norms_NL[:, k]), f"/{name}")
    return metrics


def _summary_of(norms_N: NDArray[np.float64], suffix: str) -> Metrics:
    ordered = np.sort(norms_N).tolist()
    n = len(ordered)
    values = {
        "mean": exact_mean(norms_N),
        "median": (ordered[(n - 1) // 2] + ordered[n // 2]) / 2,
        "p95": _quantile(ordered, 0.95),
        "max": ordered[-1],
    }
    return {f"train/gradient_norm/{name}{suffix}": value for name, value in values.items()}


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Return the quantile of numbers in ascending order, by linear interpolation between neighbours.

    NumPy's function has other formulas in other versions; this one fixes the bits.
    """
    position = (len(ordered) - 1) * q
    k = int(position)
    low, high, t = ordered[k], ordered[min(k + 1, len(ordered) - 1)], position - k
    return high - (high - low) * (1 - t) if t >= 0.5 else low + (high - low) * t


class GradientNoiseScale:
    """Estimates the noise scale from the steps at which it is measured.

    Parameters
    ----------
    state : the `state` after an earlier step; None before the first.
    """

    def __init__(self, state: Mapping[str, float] | None = None) -> None:
        self._noise, self._signal = (0.0, 0.0) if state is None else (state["noise"], state["signal"])

    @property
    def state(self) -> dict[str, float]:
        """The state after the steps so far, as JSON: smoothed S and |G|², up to a common factor."""
        return {"noise": self._noise, "signal": self._signal}

    def observe(self, norms_N: NDArray[np.float64], squared_norm_of_sum: float) -> None:
        """Update the estimate with a step.

        Parameters
        ----------
        norms_N : norms of the examples' gradients; with fewer than two, the step is ignored.
        squared_norm_of_sum : the squared norm of the sum of the same gradients.
        """
        b = len(norms_N)
        if b < 2:
            return
        single = exact_mean(norms_N * norms_N)
        batch = squared_norm_of_sum / (b * b)
        self._noise = SMOOTHING * self._noise + (1 - SMOOTHING) * (single - batch) / (1 - 1 / b)
        self._signal = SMOOTHING * self._signal + (1 - SMOOTHING) * (b * batch - single) / (b - 1)

    @property
    def value(self) -> float | None:
        """The noise scale, in examples; None while the noise is too large to estimate |G|²."""
        return self._noise / self._signal if self._signal > 0 and self._noise >= 0 else None

    def advice(self, batch_size: int) -> str:
        """Return a line with the noise scale and its consequence for the batch size."""
        if self.value is None:
            return (
                "gradient noise scale: not known, because the examples' gradients vary too much for the number of "
                f"measured steps; batches larger than {batch_size:,} may train as well"
            )
        scale = max(1, round(self.value))
        if self.value > 2 * batch_size:
            advice = "is smaller: larger batches would need fewer steps, and hardly more examples in total"
        elif self.value < batch_size / 2:
            advice = "is larger: smaller batches would reach the same result with fewer examples in total"
        else:
            advice = "is close to it: doubling the batch would save few steps and need many more examples in total"
        return (
            f"gradient noise scale {scale:,} examples, towards the end of the training; "
            f"the batch size {batch_size:,} {advice}"
        )
