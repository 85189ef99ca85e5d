"""Mixes training images with those of partners, as a pure function of seed, epoch and example (see `kernels.mixing`).

Shapes: M images; N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import mixing
from partrain.kernels.randomness import philox_key

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.augmentation import Cutmix, Mixup


class Mixed(NamedTuple):
    """How N examples are mixed.

    Attributes
    ----------
    partners_N : the partners, as indices in the training set.
    shares_N : the share of the example's own label in its target; the rest is that of its partner's.
    pixels_N, boxes_N4 : the factor of the example's own pixels, and the box of the partner's; see `draw_mixing`.
    """

    partners_N: NDArray[np.int64]
    shares_N: NDArray[np.float64]
    pixels_N: NDArray[np.float64]
    boxes_N4: NDArray[np.int64]


class Mixing:
    """Draws how examples are mixed.

    Parameters
    ----------
    mixup, cutmix : the two ways of mixing; None: not in this way. At least one is given.
    seed : the seed of the run.
    num_train : the number of training examples, from which partners are drawn.
    image_shape : (C, H, W).
    """

    KERNELS = (mixing.draw_mixing,)

    def __init__(
        self, mixup: Mixup | None, cutmix: Cutmix | None, *, seed: int, num_train: int, image_shape: tuple[int, ...]
    ) -> None:
        alphas = (mixup.alpha if mixup else 1.0, cutmix.alpha if cutmix else 1.0)
        from partrain.config.schema.augmentation import mixing_probabilities

        self._settings = (num_train, mixing_probabilities(mixup, cutmix), alphas, image_shape[1:])
        self._seed = seed

    def draw(self, examples_N: NDArray[np.int64], epoch: int) -> Mixed:
        """Draw how these training examples are mixed in an epoch, counted from 0."""
        N = len(examples_N)
        mixed = Mixed(np.empty(N, np.int64), np.empty(N), np.empty(N), np.empty((N, 4), np.int64))
        key = philox_key(seed=self._seed, purpose="mixing", epoch=epoch)
        mixing.draw_mixing(key, examples_N, *self._settings, *mixed)
        return mixed


class ImageMixer:
    """Computes the mixed images of a step.

    Parameters
    ----------
    image_shape : (C, H, W).
    capacity : the largest number of examples per call.
    """

    KERNELS = (mixing.mix,)

    def __init__(self, image_shape: tuple[int, ...], capacity: int) -> None:
        self._images_NCHW = np.empty((capacity, *image_shape), np.float32)
        self._places = np.arange(capacity)

    def apply(
        self, images_MCHW: NDArray[Any], places_N: NDArray[np.int64], partner_places_N: NDArray[np.int64], mixed: Mixed
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return an array of mixed images, and the indices of the examples in it; valid until the next call.

        Parameters
        ----------
        images_MCHW, places_N, partner_places_N : raw pixels, and the indices of the examples and of their partners.
        mixed : how the examples are mixed.
        """
        N = len(places_N)
        images_NCHW = self._images_NCHW[:N]
        mixing.mix(images_MCHW, places_N, partner_places_N, mixed.pixels_N, mixed.boxes_N4, images_NCHW)
        return self._images_NCHW, self._places[:N]
