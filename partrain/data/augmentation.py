"""Augments training images at random, as a pure function of seed, epoch and example.

Images are resampled first (`kernels.augmentation`), then changed pixel by pixel (`kernels.pixel_changes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.augmentation import AUGMENT
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.elementary import log
from partrain.kernels.pixel_changes import change_pixels
from partrain.kernels.randomness import philox_key

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.augmentation import Augment, Elastic

# The mean square of the cubic B-spline over the positions between two knots.
_SPLINE_MEAN_SQUARE = 151 / 315


class ImageChange(Protocol):
    """Changes the images of a step's examples."""

    def apply(
        self,
        images_MCHW: NDArray[Any],
        places_N: NDArray[np.int64],
        *,
        seed: int,
        epoch: int,
        examples_N: NDArray[np.int64],
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return an array of changed images, and the indices of the examples in it; valid until the next call.

        Parameters
        ----------
        images_MCHW, places_N : raw pixels, and the indices of the examples in them; read.
        seed, epoch, examples_N : determine the random changes; `examples_N` are indices in the training split.
        """


class Resampling:
    """Shifts, rotates, scales and distorts images.

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
        """See `ImageChange`."""
        N = len(examples_N)
        key = philox_key(seed=seed, purpose="augmentation", epoch=epoch)
        self._kernel(images_MCHW, places_N, examples_N, key, self._bounds, self._elastic, self._images_NCHW[:N])
        return self._images_NCHW, self._places[:N]


class PixelChanges:
    """Crops, mirrors and erases images, and changes their brightness and contrast.

    Parameters
    ----------
    augment : bounds of the random changes.
    image_shape : (C, H, W).
    capacity : the largest number of examples per call.
    fill : the pixels of erased boxes, one per channel.
    is_uint8 : whether the images of the data set have pixels from 0 to 255; other pixels have no bounds.
    """

    def __init__(
        self, augment: Augment, image_shape: tuple[int, ...], capacity: int, fill: Sequence[float], *, is_uint8: bool
    ) -> None:
        flips = (augment.flip in ("vertical", "both"), augment.flip in ("horizontal", "both"))
        padding = (0, 0) if augment.crop is None else augment.crop.padding
        limits = (0.0, 255.0) if is_uint8 else (-math.inf, math.inf)
        probability, area, aspect = 0.0, (1.0, 1.0), (1.0, 1.0)
        if augment.erase is not None:
            probability, area, aspect = augment.erase.probability, augment.erase.area, augment.erase.aspect
        log_aspect = tuple(log(np.array(aspect)).tolist())
        jitter = (augment.brightness, augment.contrast)
        self._settings = (flips, padding, jitter, limits, probability, area, log_aspect)
        self._fill_C = np.array(fill, np.float32)
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
        """See `ImageChange`."""
        N = len(examples_N)
        key = philox_key(seed=seed, purpose="pixel changes", epoch=epoch)
        changed = self._images_NCHW[:N]
        change_pixels(images_MCHW, places_N, examples_N, key, *self._settings, self._fill_C, changed)
        return self._images_NCHW, self._places[:N]


def make_augmentation(
    augment: Augment,
    image_shape: tuple[int, ...],
    capacity: int,
    kernels: str,
    fill: Sequence[float],
    *,
    is_uint8: bool,
) -> list[ImageChange]:
    """Return the changes of images, in order; `kernels` is "fast" or "loops", and the rest as for `PixelChanges`."""
    changes: list[ImageChange] = []
    if augment.resamples:
        changes.append(Resampling(augment, image_shape, capacity, AUGMENT[kernels]))
    if augment.changes_pixels:
        changes.append(PixelChanges(augment, image_shape, capacity, fill, is_uint8=is_uint8))
    return changes


def augmentation_kernels(augment: Augment | None, kernels: str) -> tuple[Kernel, ...]:
    """Return the kernels that `make_augmentation` needs."""
    if augment is None:
        return ()
    return (AUGMENT[kernels],) * augment.resamples + (change_pixels,) * augment.changes_pixels


def spline_of(elastic: Elastic | None) -> tuple[float, float]:
    """Return amplitude and spacing (pixels) of splines whose displacements match an elastic deformation.

    Uniform noise in (-1, 1), smoothed by a Gaussian of sigma pixels, has the mean square 1/3 / (4 pi sigma^2) unless
    sigma is well below 1. Splines have the mean square amplitude^2 / 3 times the square of _SPLINE_MEAN_SQUARE.
    """
    if elastic is None:
        return 0.0, 1.0
    amplitude = elastic.alpha / (2 * math.sqrt(math.pi) * elastic.sigma * _SPLINE_MEAN_SQUARE)
    return amplitude, math.sqrt(3) * elastic.sigma
