from __future__ import annotations

import numpy as np
import pytest

from partrain.analysis.plots.filters import draw_filters
from tests.analysis.plots.rendering import pixels_of, texts_of

RNG = np.random.Generator(np.random.Philox(key=0))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 5, 5), (1, 1, 1, 1), (100, 1, 3, 3), (6, 2, 5, 5), (40, 20, 2, 3)])
def test_filters_are_drawn_on_one_scale_around_zero(shape: tuple[int, ...]) -> None:
    weight = RNG.standard_normal(shape).astype(np.float32)
    figure = draw_filters(weight)
    pixels_of(figure)
    image = figure.axes[0].images[0]
    limit = float(np.abs(weight).max())
    assert image.get_clim() == (-limit, limit)
    num = min(shape[0], 64 if shape[1] == 1 else 8) * min(shape[1], 8)
    assert np.ma.count(image.get_array()) == num * shape[2] * shape[3]
    assert len(figure.axes[0].texts) == num
    assert (num < shape[0] * shape[1]) == any("(first " in text for text in texts_of(figure))


@pytest.mark.parametrize("num_filters", [1, 8, 100])
def test_filters_of_three_channels_are_drawn_in_colour(num_filters: int) -> None:
    weight = RNG.standard_normal((num_filters, 3, 4, 5)).astype(np.float32)
    weight[0] = 0
    weight[0, 0, 1, 2] = 9  # the largest of all, red
    figure = draw_filters(weight)
    pixels_of(figure)
    mosaic = figure.axes[0].images[0].get_array()
    assert mosaic[1, 2].tolist() == [1, 0.5, 0.5]
    assert mosaic[0, 0].tolist() == [0.5, 0.5, 0.5]
    assert sum(text.get_text().isdigit() for text in figure.axes[0].texts) == min(num_filters, 64)
    assert (num_filters > 64) == any("(first " in text for text in texts_of(figure))


def test_filters_of_zeros_are_drawn() -> None:
    pixels_of(draw_filters(np.zeros((2, 1, 3, 3), np.float32)))
