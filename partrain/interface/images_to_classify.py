"""The images that a Python program gives a run to classify: arrays, pictures of digits to be prepared, or paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partrain.analysis.prediction_input import warn_if_unlike_training
from partrain.analysis.trained_run import TrainedRun
from partrain.data.image_arrays import Layout
from partrain.data.image_files import PREPARATIONS, invert_image, pixel_values, prepare_image, read_image
from partrain.errors import ConfigError
from partrain.interface.memory_data import array_to_classify

# Of more images than this, so many are compared with the training images, at equal intervals.
MAX_COMPARED = 100


def images_to_classify(
    given: ArrayLike,
    trained: TrainedRun,
    layout: Layout,
    warn: Callable[[str], None],
    *,
    invert: bool,
    prepare: str | None,
) -> NDArray[Any]:
    """Return images as an array for a network, (N,C,H,W).

    Parameters
    ----------
    given : an array, see `array_to_classify`; or the path of an image, or a list of paths. With `prepare`, also a list
        of pictures of any size, see `prepare_image`.
    trained : the network.
    layout : the order of the axes of an array; None: as in training.
    warn : called about images that are unlike the training images.
    invert, prepare : see `read_image`.

    Raises
    ------
    DataError, ConfigError
        An image does not fit the network, or cannot be read or prepared; or `prepare` is unknown.
    """
    if prepare is not None and (prepare not in PREPARATIONS or invert):
        raise ConfigError(f"prepare: expected None or {', '.join(PREPARATIONS)}, without invert; got {prepare!r}")
    shape, dtype = trained.network.input_shape, trained.image_dtype
    items: Sequence[Any] = [given] if _is_path(given) else given  # type: ignore[assignment]
    if prepare is not None or (isinstance(items, list | tuple) and items and all(map(_is_path, items))):
        images = [
            read_image(
                Path(item),
                shape,
                dtype,
                invert=invert,
                prepare=prepare,
                layout=layout or layout_of(trained),
            )
            if _is_path(item)
            else prepare_image(np.asarray(item), shape, dtype, f"images[{index}]")
            for index, item in enumerate(items)
        ]
        images_NCHW = np.array(images).reshape(len(images), *shape)
    else:
        images_NCHW = array_to_classify(given, shape, layout or layout_of(trained))
        if images_NCHW.dtype != np.uint8 and images_NCHW.size:
            images_NCHW = pixel_values(images_NCHW, dtype, "images")
        images_NCHW = invert_image(images_NCHW, dtype, "images") if invert else images_NCHW
    if prepare is None:
        compared = range(0, len(images_NCHW), max(1, len(images_NCHW) // MAX_COMPARED))
        warn_if_unlike_training([(f"images[{k}]", images_NCHW[k]) for k in compared], trained, warn, invert=invert)
    return images_NCHW


def _is_path(item: Any) -> bool:
    return isinstance(item, str | os.PathLike)


def layout_of(trained: TrainedRun) -> Layout:
    """Return the layout of the run's images: None unless the channels are last, so that other images are checked."""
    return "channels_last" if trained.config.data.layout == "channels_last" else None
