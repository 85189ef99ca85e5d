"""Pictures of digits become images like those of MNIST."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import partrain
from partrain.data.digit_preparation import prepare_digit
from partrain.errors import DataError
from tests.digit_drawings import STYLES, Style, draw
from tests.program import ROOT

DIGITS = np.arange(10)


def grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(PIL.Image.fromarray(picture).convert("L"))


def prepare(picture: NDArray[np.uint8], shape: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    return prepare_digit(grey(picture), shape, "picture")


def box_of(image_HW: NDArray[np.uint8]) -> tuple[int, int]:
    lit = image_HW > 0
    return int(np.ptp(np.flatnonzero(lit.any(axis=1)))) + 1, int(np.ptp(np.flatnonzero(lit.any(axis=0)))) + 1


@pytest.mark.parametrize("style", ["drawn in a paint program", "photograph with a dark corner", "small, in a corner"])
@pytest.mark.parametrize("shape", [(28, 28), (56, 56), (28, 40)])
def test_digit_fills_the_box_and_its_centre_of_mass_is_in_the_middle(style: str, shape: tuple[int, int]) -> None:
    for digit in (0, 1, 7):
        image = prepare(draw(digit, STYLES[style]), shape)
        assert image.shape == shape
        assert max(box_of(image)) == round(min(shape) * 20 / 28)
        mass = image.astype(float)
        for axis, side in enumerate(shape):
            centre = mass.sum(axis=1 - axis) @ np.arange(side) / mass.sum()
            assert abs(centre - side // 2) <= 0.51
        assert image.max() == 255


def test_proportions_are_kept() -> None:
    rows, columns = box_of(prepare(draw(1, Style(slant=0))))
    assert (rows, columns < 10) == (20, True)
    picture = np.full((100, 100), 255, np.uint8)
    picture[40:60, 30:70] = 0
    assert box_of(prepare(picture)) == (10, 20)


def test_dark_on_light_and_light_on_dark_give_the_same_image() -> None:
    for digit in (2, 4, 8):
        picture = draw(digit, STYLES["drawn in a paint program"])
        np.testing.assert_allclose(prepare(picture).astype(int), prepare(255 - picture), atol=2)


@pytest.mark.parametrize("change", [{"place": (0.4, 0.62)}, {"size": (560, 560)}, {"paper": (180, 180, 180)}])
def test_place_size_and_paper_make_next_to_no_difference(change: dict[str, tuple[int, ...]]) -> None:
    for digit in (3, 5):
        plain, changed = prepare(draw(digit, Style())), prepare(draw(digit, replace(Style(), **change)))
        # A centre of mass between two pixels may be rounded to the one or to the other.
        moved = [np.roll(changed, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert min(abs(plain.astype(int) - image).mean() for image in moved) < 3


def test_fine_lines_become_as_wide_as_those_of_mnist() -> None:
    fine, normal = (prepare(draw(5, Style(size=(900, 900), pen=pen))) for pen in (0.02, 0.1))
    assert fine.mean() > 0.6 * normal.mean()


def test_thin_parts_of_a_digit_are_kept() -> None:
    picture = np.full((300, 300), 235, np.uint8)
    picture[60:240, 100:112] = 30
    picture[150, 112:240] = 30
    columns = np.flatnonzero((prepare(picture) >= 64).any(axis=0))
    assert columns[-1] - columns[0] >= 12


def test_what_lies_at_the_edge_or_far_away_is_left_out() -> None:
    picture = draw(5, Style(size=(300, 300), height=0.5)).copy()
    alone = prepare(picture)
    picture[:, :14] = 30  # the table beside the paper
    picture[280:285, 100:105] = 0  # a crumb
    assert abs(alone.astype(int) - prepare(picture)).max() <= 8


@pytest.mark.parametrize("picture", [np.full((50, 40), 255), np.full((1, 1), 9), np.tile(np.arange(80) + 100, (60, 1))])
def test_picture_without_a_digit_is_an_error(picture: NDArray[np.int64]) -> None:
    with pytest.raises(DataError, match=r"photo\.jpg: no digit was found: nothing stands out from the background"):
        prepare_digit(picture.astype(np.uint8), (28, 28), "photo.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 3), (28, 28), (200, 9), (300, 260)])
def test_noise_of_any_size_is_an_image_or_no_digit(size: tuple[int, int]) -> None:
    noise = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, size, np.uint8)
    with contextlib.suppress(DataError):
        assert prepare_digit(noise, (28, 28), "x").shape == (28, 28)


def num_right(style: Style, seed: int) -> int:
    """Return how many of the ten digits a network that was trained on MNIST recognises."""
    run = partrain.open_run(ROOT / "runs/example-mnist", quiet=True)
    pictures = [draw(digit, style, seed) for digit in DIGITS.tolist()]
    return int((run.predict(pictures, prepare="mnist") == DIGITS).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    "style", ["drawn in a paint program", "of 28 x 28 pixels", "pencil", "photograph with a shadow", "chalk on a board"]
)
def test_network_trained_on_mnist_recognises_the_digits(style: str) -> None:
    assert num_right(STYLES[style], 0) == 10


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_network_trained_on_mnist_recognises_digits_of_every_style(style: str) -> None:
    assert num_right(STYLES[style], 1) >= 9
