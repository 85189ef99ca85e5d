from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from partrain.analysis.plots import training_curves
from partrain.analysis.plots.training_curves import draw_accuracy, draw_loss, smooth
from tests.analysis.plots.rendering import pixels_of, texts_of


def rows_of(num_steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for k in range(1, num_steps + 1):
        epoch = k / 100
        rows.append({"step": k, "epoch": epoch, "train/loss": 2 / k, "train/accuracy": 1 - 1 / k})
        if k % 100 == 0:
            rows.append({"step": k, "epoch": epoch, "validation/loss": 3 / k, "validation/accuracy": 1 - 2 / k})
    return rows


def test_loss_is_drawn_raw_smoothed_and_for_validation() -> None:
    figure = draw_loss(rows_of(300))
    pixels_of(figure)
    assert figure is not None
    (axes,) = figure.axes
    raw, smoothed, validation = axes.get_lines()
    np.testing.assert_array_equal(raw.get_ydata(), [2 / k for k in range(1, 301)])
    np.testing.assert_array_equal(smoothed.get_ydata(), smooth(np.array([2 / k for k in range(1, 301)]))[0])
    np.testing.assert_array_equal(validation.get_ydata(), [3 / k for k in (100, 200, 300)])
    assert {"Loss", "step", "loss (mean cross-entropy, nats)"} <= set(texts_of(figure))
    assert "training batches, smoothed over about 15 steps" in texts_of(figure)


def test_loss_axis_shows_the_smoothed_and_the_validation_loss_whatever_a_single_batch_has() -> None:
    rows = [*rows_of(300), {"step": 301, "epoch": 3, "train/loss": 1e-9}]
    figure = draw_loss(rows)
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert 1e-4 < low < 2 / 300 < 2 < high


def test_accuracy_is_drawn_over_epochs() -> None:
    figure = draw_accuracy(rows_of(300))
    pixels_of(figure)
    assert figure is not None
    _, validation = figure.axes[0].get_lines()
    np.testing.assert_array_equal(validation.get_xdata(), [1, 2, 3])
    assert {"Accuracy", "epoch", "accuracy", "99.33%", "90%", "99%"} <= set(texts_of(figure))
    assert {"training batches, smoothed", "validation"} <= set(texts_of(figure))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1}],
        [{"step": 1, "epoch": 1, "train/loss": math.nan, "validation/accuracy": math.inf}],
        [{"step": "1", "epoch": None, "train/loss": 1, "train/accuracy": 1}],
        [{"step": 1, "epoch": 1, "train/loss": True, "train/accuracy": [1]}],
    ],
)
def test_without_numbers_nothing_is_drawn(rows: list[dict[str, Any]]) -> None:
    assert draw_loss(rows) is None
    assert draw_accuracy(rows) is None


@pytest.mark.slow
@pytest.mark.parametrize("losses", [[0.0], [0.0] * 50, [1e-30, 1e30], [2.0, 2.1], [1.0, math.nan, 0.0, -math.inf, 0.5]])
def test_any_numbers_can_be_drawn(losses: list[float]) -> None:
    rows = [{"step": k, "epoch": k, "train/loss": x, "train/accuracy": 1.0} for k, x in enumerate(losses)]
    pixels_of(draw_loss(rows))
    pixels_of(draw_accuracy(rows))


def test_losses_without_epochs_have_no_accuracy_plot() -> None:
    rows = [{"step": k, "train/loss": 1 / k} for k in range(1, 40)]
    pixels_of(draw_loss(rows))
    assert draw_accuracy(rows) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=150))
def test_smoothed_value_is_the_weighted_mean_of_all_before(values: list[float]) -> None:
    smoothed, num_points = smooth(np.array(values))
    weight = 2 / (num_points + 1)
    for k in (0, len(values) // 2, len(values) - 1):
        weights = (1 - weight) ** np.arange(k, -1, -1)
        assert smoothed[k] == pytest.approx(np.average(values[: k + 1], weights=weights), rel=1e-9, abs=1e-9)


def test_very_many_points_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_curves, "MAX_POINTS", 50)
    figure = draw_loss(rows_of(300))
    assert figure is not None
    assert len(figure.axes[0].get_lines()[0].get_xdata()) == 50  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("draw", "field", "value"),
    [
        (draw_loss, "step", 10**400),
        (draw_loss, "train/loss", 1e307),
        (draw_loss, "train/loss", [1]),
        (draw_accuracy, "validation/accuracy", -(10**18)),
    ],
)
def test_implausible_values_in_the_metrics_are_left_out(
    draw: Callable[[list[dict[str, Any]]], Figure | None], field: str, value: object
) -> None:
    rows: list[dict[str, Any]] = [
        {"step": k, "epoch": k / 10, "train/loss": 2 / k, "validation/loss": 1 / k, "validation/accuracy": 1 - 1 / k}
        for k in range(1, 10)
    ]
    rows[4][field] = value
    figure = draw(rows)
    assert figure is not None
    (axes,) = figure.axes
    for line in axes.lines:
        assert np.all(np.abs(np.asarray(line.get_data(), np.float64)) < 100)
