"""Augments training images at random, as a pure function of seed, epoch and example (see `kernels.augmentation`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.augmentation import Augment, Elastic
from partrain.errors import ConfigError
from partrain.kernels.randomness import philox_key

# The mean square of the cubic B-spline over the positions between two knots.
_SPLINE_MEAN_SQUARE = 151 / 315


class Augmentation:
    """Computes the augmented images of a step.

    Parameters
    ----------
    augment : bounds of the random changes.
    image_shape : (C, H, W).
    capacity : the largest number of examples per call.
    kernel : `kernels.augmentation.augment`, loaded, or its Python definition.
    """

    def __init__(
        self, augment: Augment, image_shape: tuple[int, ...], capacity: int, kernel: Callable[..., Any]
    ) -> None:
        self._kernel = kernel
        self._bounds = (*augment.shift, augment.rotation / 180, augment.scale)
        self._elastic = spline_of(augment.elastic)
        self._images_NCHW = np.empty((capacity, *image_shape), np.float32)
        self._places = np.arange(capacity)

    def apply(
        self,
        images_MCHW: NDArray[Any],
        places_N: NDArray[np.int64],
        *,
        seed: int,
        epoch: int,
        examples_N: NDArray[np.int64],
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return an array of augmented images, and the indices of the examples in it; valid until the next call.

        Parameters
        ----------
        images_MCHW, places_N : raw pixels, and the indices of the examples in them; read.
        seed, epoch, examples_N : determine the random changes; `examples_N` are indices in the training split.
        """
        N = len(examples_N)
        key = philox_key(seed=seed, purpose="augmentation", epoch=epoch)
        self._kernel(images_MCHW, places_N, examples_N, key, self._bounds, self._elastic, self._images_NCHW[:N])
        return self._images_NCHW, self._places[:N]


def spline_of(elastic: Elastic | None) -> tuple[float, float]:
    """Return amplitude and spacing (pixels) of splines whose displacements match an elastic deformation.

    Uniform noise in (-1, 1), smoothed by a Gaussian of sigma pixels, has the mean square 1/3 / (4 pi sigma^2) unless
    sigma is well below 1. Splines have the mean square amplitude^2 / 3 times the square of _SPLINE_MEAN_SQUARE.
    """
    if elastic is None:
        return 0.0, 1.0
    amplitude = elastic.alpha / (2 * math.sqrt(math.pi) * elastic.sigma * _SPLINE_MEAN_SQUARE)
    return amplitude, math.sqrt(3) * elastic.sigma


def require_in_sight(augment: Augment | None, image_shape: tuple[int, ...]) -> None:
    """Check that no image is shifted out of view completely.

    Raises
    ------
    ConfigError
        The bounds allow such a shift.
    """
    if augment is None:
        return
    _, rows, columns = image_shape
    if augment.shift[0] >= rows or augment.shift[1] >= columns:
        raise ConfigError(
            f"training.augment.shift: {augment.shift[0]:g} rows and {augment.shift[1]:g} columns move an image of "
            f"{rows} x {columns} pixels out of sight; a tenth of its size is usual"
        )
