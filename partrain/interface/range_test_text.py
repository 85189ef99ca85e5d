"""A learning-rate range test as text: a table with bars, and the suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from partrain.training.learning_rate_range import RangeTest

# Rows of the table, and the characters of the longest bar: the text fits a terminal of 80 columns.
NUM_ROWS = 28
BAR_WIDTH = 30


def facts_of(test: RangeTest) -> dict[str, Any]:
    """Return the test for JSON."""
    return {
        "suggestion": test.suggestion,
        "falls_fastest_at": None if test.steepest is None else test.rates[test.steepest],
        "smallest_loss_at": None if test.smallest is None else test.rates[test.smallest],
        "ending": test.ending,
        "rates": test.rates,
        "losses": test.losses,
        "smoothed_losses": test.smoothed,
    }


def describe(test: RangeTest) -> str:
    """Return the table of rates with their smoothed losses, why the test ended, and the suggestion."""
    return "\n".join([*_table(test), *_conclusion(test)])


def _table(test: RangeTest) -> list[str]:
    smoothed = test.smoothed
    if test.smallest is None:
        return []
    notes = {test.smallest: "smallest loss"}
    if test.steepest is not None:
        notes[test.steepest] = "falls fastest"
    if test.suggestion is not None:
        notes[_nearest(test.rates, test.suggestion)] = "suggestion"
    num_rows = min(NUM_ROWS, len(smoothed))
    places = {round(row * (len(smoothed) - 1) / max(1, num_rows - 1)) for row in range(num_rows)}
    for marked in notes:
        places.discard(min(places - notes.keys(), key=lambda place: abs(place - marked), default=marked))
        places.add(marked)
    highest = max(smoothed)
    lines = [f"{'rate':>8}  {'loss':>8}"]
    for place in sorted(places):
        bar = "#" * round(BAR_WIDTH * smoothed[place] / highest)
        note = f"  <- {notes[place]}" if place in notes else ""
        loss = f"{smoothed[place]:.3f}" if smoothed[place] < 1000 else f"{smoothed[place]:.2e}"
        lines.append(f"{test.rates[place]:>8.1e}  {loss:>8}  {bar}{note}".rstrip())
    return lines


def _conclusion(test: RangeTest) -> list[str]:
    lines = [] if test.ending is None else [f"the test ended early: {test.ending}"]
    if test.steepest is None:
        return [*lines, "no suggestion: the loss hardly falls; try other rates (--from, --to)"]
    if test.suggestion is None:
        return [*lines, f"no suggestion: at the last rate, {test.rates[-1]:.1e}, the loss still falls"]
    lines.append("suggested: halfway from where the loss falls fastest to where it is smallest")
    return [*lines, f"suggestion: --set training.optimizer.lr={test.suggestion:.1e}"]


def _nearest(rates: Sequence[float], rate: float) -> int:
    """Return the place of the rate that is nearest to another one on a logarithmic scale."""
    return min(range(len(rates)), key=lambda place: max(rates[place] / rate, rate / rates[place]))
