"""The axis of accuracies: chosen from the data, because from 0 to 100% the accuracies 99.1% and 99.9% look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

# The scale is logarithmic in the error rate from this accuracy on, if the error rates differ by such a factor.
HIGH_ACCURACY, LARGE_FACTOR = 0.9, 5
# A logarithmic axis has no end at 100%, so this is added to each error rate, or a part of the smallest one if larger.
SMALLEST_OFFSET = 1e-4
PART_OF_SMALLEST, PART_OF_MEASURED = 1 / 2, 1 / 10
# A linear axis shows at least this range.
SMALLEST_RANGE = 0.01
# Labels of a logarithmic axis, the most important ones first.
_TICKS = (1.0, 0.0, 0.9, 0.99, 0.999, 0.5, 0.95, 0.995, 0.9995, 0.98, 0.998, 0.8, 0.9998, 0.97, 0.997, 0.7, 0.992)
# The smallest distance between two labels, as a share of the axis: they stand beside or above each other.
_DISTANCES = {"x": 0.12, "y": 0.07}


@dataclass(frozen=True)
class AccuracyScale:
    """The scale of an axis of accuracies.

    Attributes
    ----------
    low, high : the lowest and highest accuracy that are shown.
    offset : the scale is -log10(1 - accuracy + offset); None for a linear scale.
    """

    low: float
    high: float
    offset: float | None

    @classmethod
    def of(cls, accuracies: ArrayLike, measured: ArrayLike = ()) -> AccuracyScale:
        """Choose the scale that shows accuracies best.

        Parameters
        ----------
        accuracies : at least one.
        measured : those that were measured on many examples, if the others are estimates, as the smoothed accuracy of
            batches is. Far smaller error rates than theirs mean nothing, and the scale does not resolve them.
        """
        values = np.clip(np.asarray(accuracies, np.float64), 0, 1)
        low, high = float(values.min()), float(values.max())
        errors = 1 - values
        smallest = _smallest_error(measured) * PART_OF_MEASURED or _smallest_error(values) * PART_OF_SMALLEST
        offset = max(SMALLEST_OFFSET, smallest)
        if high >= HIGH_ACCURACY and errors.max() + offset >= LARGE_FACTOR * (errors.min() + offset):
            return cls(low, high, offset)
        missing = max(0.0, SMALLEST_RANGE - (high - low)) / 2
        high = min(1.0, high + missing)
        return cls(max(0.0, min(low - missing, high - SMALLEST_RANGE)), high, None)

    def forward(self, accuracies: ArrayLike) -> NDArray[np.float64]:
        """Return the places of accuracies on the axis."""
        values = np.asarray(accuracies, np.float64)
        if self.offset is None:
            return values
        # Beyond 100% there is only the margin of the axis; it may not reach the end of the logarithm.
        return -np.log10(np.maximum(1 - values + self.offset, self.offset / 100))

    def inverse(self, places: ArrayLike) -> NDArray[np.float64]:
        """Return the accuracies at places on the axis."""
        values = np.asarray(places, np.float64)
        return values if self.offset is None else 1 + self.offset - 10**-values

    def ticks(self, direction: Literal["x", "y"]) -> list[float]:
        """Return the accuracies with a label on the x or y axis."""
        if self.offset is None:
            ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
            return [tick for tick in map(float, ticks) if -1e-9 <= tick <= 1 + 1e-9]
        low, high = self.forward([self.low, self.high]).tolist()
        chosen: list[float] = []
        for tick in _TICKS:
            place = float(self.forward(tick))
            others = self.forward(chosen).tolist()
            if low <= place <= high and all(
                abs(place - other) > _DISTANCES[direction] * (high - low) for other in others
            ):
                chosen.append(tick)
        return sorted(chosen)

    def apply(self, axes: Axes, direction: Literal["x", "y"], margins: tuple[float, float] = (0.05, 0.05)) -> None:
        """Set scale, limits and labels of an axis.

        Parameters
        ----------
        axes : the axes of the plot.
        direction : which of the two axes has the accuracies.
        margins : the free room before the lowest and after the highest accuracy, as shares of the range.
        """
        low, high = self.forward([self.low, self.high]).tolist()
        limits = self.inverse([low - margins[0] * (high - low), high + margins[1] * (high - low)]).tolist()
        functions: Any = (self.forward, self.inverse)
        if direction == "x":
            axes.set_xscale("function", functions=functions)
            axes.set_xlim(*limits)
        else:
            axes.set_yscale("function", functions=functions)
            axes.set_ylim(*limits)
        axis = axes.xaxis if direction == "x" else axes.yaxis
        axis.set_major_locator(FixedLocator(self.ticks(direction)))
        axis.set_major_formatter(FuncFormatter(lambda accuracy, _: f"{100 * accuracy:.6g}%"))


def _smallest_error(accuracies: ArrayLike) -> float:
    """Return the smallest error rate that is not 0, or else 0."""
    errors = 1 - np.asarray(accuracies, np.float64)
    return float(errors[errors > 1e-12].min()) if (errors > 1e-12).any() else 0.0
