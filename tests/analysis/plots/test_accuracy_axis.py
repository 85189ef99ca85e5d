from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partrain.analysis.plots.accuracy_axis import AccuracyScale
from partrain.analysis.plots.canvas import new_axes, new_figure
from tests.analysis.plots.rendering import pixels_of, texts_of

ACCURACIES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_high_accuracies_are_drawn_by_the_logarithm_of_the_error_rate() -> None:
    scale = AccuracyScale.of([0.1, 0.9, 0.99, 0.999])
    assert scale.offset is not None
    places = scale.forward([0.9, 0.99, 0.999])
    assert np.diff(places) == pytest.approx([1, 1], rel=0.3)
    assert {0.5, 0.9, 0.99} <= set(scale.ticks("x"))


@pytest.mark.parametrize("accuracies", [[0.2, 0.6], [0.98, 0.982, 0.981]])
def test_low_or_similar_accuracies_are_drawn_on_a_linear_axis(accuracies: list[float]) -> None:
    scale = AccuracyScale.of(accuracies)
    assert scale.offset is None
    assert len(scale.ticks("x")) >= 3
    assert scale.high - scale.low < 2 * max(0.01, max(accuracies) - min(accuracies))


def test_scale_does_not_resolve_errors_far_below_those_that_were_measured() -> None:
    estimated = [0.1, 0.8, 0.9, 1 - 1e-9]
    scale = AccuracyScale.of(estimated, [0.8, 0.9])
    places = scale.forward([0.1, 0.9, 1 - 1e-9])
    assert places[2] - places[1] < 2 * (places[1] - places[0])
    assert scale.offset == AccuracyScale.of([*estimated, 1.0], [0.8, 0.9]).offset


@given(ACCURACIES)
def test_any_accuracies_are_in_order_within_limits_and_have_labels(accuracies: list[float]) -> None:
    scale = AccuracyScale.of(accuracies)
    ordered = np.sort(accuracies)
    places = scale.forward(ordered)
    assert np.isfinite(places).all()
    assert (np.diff(places) >= 0).all()
    assert scale.low < scale.high
    assert scale.low <= ordered[0] + 1e-12
    assert scale.high >= ordered[-1] - 1e-12
    assert len(scale.ticks("x")) >= 2
    np.testing.assert_allclose(scale.inverse(places), ordered, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("accuracies", [[1.0], [0.0, 1.0], [0.5, 0.9999, 1.0], [0.0], [0.97, 1.0]])
def test_labels_name_accuracies_in_percent(accuracies: list[float]) -> None:
    for direction in ("x", "y"):
        figure = new_figure()
        axes = new_axes(figure, "", "", "")
        axes.plot(accuracies, accuracies)
        AccuracyScale.of(accuracies).apply(axes, direction)  # type: ignore[arg-type]
        pixels_of(figure)
        labels = [text for text in texts_of(figure) if text.endswith("%")]
        assert len(labels) >= 2
        assert all(0 <= float(label[:-1]) <= 100 for label in labels)
        assert ("100%" in labels) == (1.0 in accuracies)
