"""Writes figures into a run's directory `plots`. This module imports matplotlib only when it is asked to draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from partrain.store.run_directory import RunDirectory
from partrain.system.durable_files import make_folders, write_durably
from partrain.system.messages import Messages

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def can_draw(messages: Messages) -> bool:
    """Return whether matplotlib can be imported; if not, tell the user why no plots are drawn."""
    try:
        from partrain.analysis.plots import canvas  # noqa: F401 (imported to see whether that works)
    except ModuleNotFoundError:
        messages.say("no plots are drawn because matplotlib is not installed: pip install 'partrain[plots]'")
        return False
    except (ImportError, ValueError) as error:  # a broken installation, or a setting that matplotlib rejects
        messages.warn(f"no plots are drawn because matplotlib cannot be imported: {error}")
        return False
    return True


def write_figures(run: RunDirectory, figures: Iterator[tuple[str, Figure | None]], messages: Messages) -> None:
    """Write figures into the run as PNG files; a failure to write is a warning. Requires matplotlib.

    Parameters
    ----------
    run : the run.
    figures : names, without a suffix, and figures; None for a figure that has nothing to show.
    messages : messages to the user.
    """
    from partrain.analysis.plots import canvas

    num_written = 0
    try:
        make_folders(run.plots_path)
        with canvas.house_style():
            for name, figure in figures:
                if figure is not None:
                    write_durably(run.plots_path / f"{name}.png", canvas.to_png(figure))
                    num_written += 1
    except OSError as error:
        messages.warn(f"{run.plots_path}: the plots cannot be written: {error.strerror or error}")
        return
    messages.say(f"{num_written} plots: {run.plots_path}")
