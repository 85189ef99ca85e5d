"""Checks the bounds of augmentation against the images. Needs no Numba."""

from __future__ import annotations

from collections.abc import Sequence

from partrain.config.schema.augmentation import Augment
from partrain.errors import ConfigError


def require_in_sight(augment: Augment | None, image_shape: tuple[int, ...]) -> None:
    """Check that no image is moved out of view completely.

    Raises
    ------
    ConfigError
        The bounds allow such a shift or crop.
    """
    if augment is None:
        return
    _, rows, columns = image_shape
    moves: list[tuple[str, Sequence[float]]] = [("shift", augment.shift)]
    if augment.crop is not None:
        moves.append(("crop.padding", augment.crop.padding))
    problems = [
        f"training.augment.{key}: {most[0]:g} rows and {most[1]:g} columns move an image of {rows} x {columns} pixels "
        "out of sight; a tenth of its size is usual"
        for key, most in moves
        if most[0] >= rows or most[1] >= columns
    ]
    if problems:
        raise ConfigError("\n".join(problems))
