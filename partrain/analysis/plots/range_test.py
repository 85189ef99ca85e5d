"""The picture of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Sequence

from partrain.analysis.plots.canvas import BLUE, LIGHT_BLUE, VERMILION, house_style, new_axes, new_figure, to_png


def draw_range_test(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float | None
) -> bytes:
    """Return the picture, a PNG file: the losses over the learning rate, and the suggested rate.

    Parameters
    ----------
    rates, losses, smoothed : of each step.
    suggestion : the suggested rate; None: there is none.
    """
    with house_style():
        figure = new_figure()
        axes = new_axes(figure, "Learning-rate range test", "learning rate", "loss (mean cross-entropy, nats)")
        axes.set_xscale("log")
        axes.plot(rates, losses, color=LIGHT_BLUE, linewidth=0.7, alpha=0.6, label="training batches")
        axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
        if suggestion is not None:
            axes.axvline(suggestion, color=VERMILION, linestyle="--", label=f"suggestion: {suggestion:.2g}")
        # Single batches of a loss that diverges would flatten all other points.
        axes.set_ylim(0, 1.1 * max([*smoothed, *losses[:1]]))
        axes.legend()
        return to_png(figure)
