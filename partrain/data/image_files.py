"""Reads an image file for prediction, into an array like those that the network was trained on.

Images are converted and resized to the network's input (see `data.image_decoding`), or prepared like MNIST's digits
(see `data.digit_preparation`). Arrays (.npy) must already have the network's shape, unless they are prepared. Shapes:
C, H, W channels, rows, columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.array_files import map_array
from partrain.data.digit_preparation import MAX_SIDE, prepare_digit
from partrain.data.file_access import require_file, unreadable
from partrain.data.image_arrays import Layout
from partrain.data.image_decoding import MODES, decode_grey, decode_image, pillow_warnings_ignored, require_pillow
from partrain.errors import DataError
from partrain.system.memory_limits import require_memory

# The ways of preparing images for a network.
PREPARATIONS = ("mnist",)

_NPY_MAGIC = b"\x93NUMPY"


def read_image(
    path: Path,
    shape: tuple[int, ...],
    dtype: str,
    *,
    invert: bool = False,
    prepare: str | None = None,
    layout: Layout = None,
) -> NDArray[Any]:
    """Read an image file as an array like those that a network was trained on.

    Parameters
    ----------
    path : an image file, or an .npy file with an array (C,H,W), or (H,W) for one channel; (H,W,C) if the `layout` is
        "channels_last".
    shape : (C,H,W) of the network's images.
    dtype : the dtype of the network's images: "uint8" (0 to 255), or "float32" in any unit; then only arrays are
        accepted.
    invert : swap dark and light: 255 - x.
    prepare : "mnist" to cut out, scale and centre a digit, which may be dark or light; then arrays may be of any size.
    layout : the order of the axes of an array.

    Returns
    -------
    The array (C,H,W) in the units of the network's images; uint8 for an image, float32 for an array.

    Raises
    ------
    DataError
        The file is not an image, does not fit the network, or cannot be prepared.
    ResourceError
        The image does not fit into memory.
    MissingPackage
        The file is an image, and Pillow is not installed.
    """
    require_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_NPY_MAGIC))
    except OSError as error:
        raise unreadable(path, error) from None
    is_array = path.suffix == ".npy" or start == _NPY_MAGIC
    if prepare is not None:
        return prepare_image(map_array(path) if is_array else _read_grey(path), shape, dtype, str(path))
    image = _read_array(path, shape, dtype, layout) if is_array else _read_image(path, shape, dtype)
    return invert_image(image, dtype, str(path)) if invert else image


def prepare_image(array: NDArray[Any], shape: tuple[int, ...], dtype: str, name: str) -> NDArray[np.uint8]:
    """Return a picture of a digit as an image like those of MNIST, see `prepare_digit`.

    Parameters
    ----------
    array : the picture, with values from 0 to 255: (H,W), or (C,H,W) or (H,W,C) with one or three channels.
    shape : (C,H,W) of the network's images.
    dtype : the dtype of the network's images.
    name : the picture's name in messages.

    Raises
    ------
    DataError
        The array is no such picture, no digit is found, or the network's images are not uint8.
    """
    if dtype != "uint8" or shape[0] not in MODES:
        raise DataError(f"{name}: cannot be prepared: the network's images are {dtype} with {shape[0]} channels.")
    require_pillow(f"{name}: preparing pictures of digits")
    require_memory(24 * array.size, name, "Make the picture smaller.")
    values = pixel_values(array, dtype, name)
    if values.ndim == 3 and values.shape[0] in MODES:
        values = values.transpose(1, 2, 0)
    if values.ndim == 2:
        values = values[:, :, np.newaxis]
    if values.ndim != 3 or values.shape[2] not in MODES or 0 in values.shape:
        raise DataError(
            f"{name}: has shape {_text(array.shape)}, expected one picture: (H, W), (3, H, W) or (H, W, 3)."
        )
    weights = (0.299, 0.587, 0.114) if values.shape[2] == 3 else (1.0,)
    luma_HW = sum(weight * values[:, :, channel].astype(np.float64) for channel, weight in enumerate(weights))
    digit_HW = prepare_digit(np.rint(luma_HW).astype(np.uint8), (shape[1], shape[2]), name)
    return np.repeat(digit_HW[np.newaxis], shape[0], axis=0)


def invert_image(image_CHW: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Return an image with dark and light swapped: 255 - x.

    Parameters
    ----------
    dtype : the dtype of the network's images.
    name : the image's name in messages.

    Raises
    ------
    DataError
        The network's images are not uint8: their range is not known.
    """
    if dtype != "uint8":
        raise DataError(f"{name}: cannot be inverted: the network's images have no fixed range.")
    return 255 - image_CHW


def _read_array(path: Path, shape: tuple[int, ...], dtype: str, layout: Layout) -> NDArray[Any]:
    array = map_array(path)
    C, H, W = shape
    full = (H, W, C) if layout == "channels_last" else shape
    fitting = [full, (H, W)] if C == 1 else [full]
    if array.shape not in fitting:
        hint = " Its last axis are the channels: give numpy.moveaxis(array, 2, 0)." if array.shape == (H, W, C) else ""
        raise DataError(
            f"{path}: its array has shape {_text(array.shape)}; the network takes one image of shape "
            f"{' or '.join(_text(s) for s in fitting)}.{hint}"
        )
    if array.ndim == 3 and layout == "channels_last":
        array = np.moveaxis(array, 2, 0)
    return pixel_values(array.reshape(shape), dtype, str(path))


def pixel_values(array: NDArray[Any], dtype: str, name: str) -> NDArray[np.float32]:
    """Return an array of numbers as float32, in the units of a network's images.

    Parameters
    ----------
    dtype : the dtype of the network's images.
    name : the array's name in messages.

    Raises
    ------
    DataError
        The array contains anything but finite numbers, or numbers in other units.
    """
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name}: its array has dtype {array.dtype}, expected numbers. Convert it with .astype.")
    values = np.array(array, np.float32, order="C")
    if not np.isfinite(values).all():
        raise DataError(f"{name}: its array contains NaN or infinity, expected finite numbers.")
    if dtype == "uint8":
        if values.min() < 0 or values.max() > 255:
            raise DataError(
                f"{name}: its array has values from {values.min():g} to {values.max():g}; the network's images have "
                "values from 0 to 255."
            )
        if array.dtype.kind == "f" and 0 < values.max() <= 1:
            raise DataError(
                f"{name}: its array has values from 0 to 1; the network's images have values from 0 to 255. Multiply "
                "it by 255."
            )
    return values


def _read_image(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[np.uint8]:
    channels = shape[0]
    if dtype != "uint8" or channels not in MODES:
        raise DataError(
            f"{path}: the network's images are {dtype} with {channels} channels, which no image file provides. Give an "
            f".npy file with an array of shape {_text(shape)}."
        )
    require_pillow(f"{path}: reading image files (other than .npy)")
    with pillow_warnings_ignored():
        return decode_image(path, shape)


def _read_grey(path: Path) -> NDArray[np.uint8]:
    """Return an image in grey, (H,W), shrunk if it is larger than what is prepared."""
    require_pillow(f"{path}: reading image files (other than .npy)")
    with pillow_warnings_ignored():
        return decode_grey(path, MAX_SIDE)


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
