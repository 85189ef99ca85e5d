"""Checks the bounds of augmentation against the images. Needs no Numba."""

from __future__ import annotations

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
    if problems := list(augment.moves_out_of_sight(rows, columns)):
        raise ConfigError("\n".join(problems))
