"""An image of the user's own, from a file to an array as the network was trained on.

Pictures are made grey or coloured, and resized, as the network wants them (data.pictures). Arrays (.npy) are taken
as they are. Shapes: C, H, W channels, rows, columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.arrays import map_array
from partrain.data.dataset import require_file, unreadable
from partrain.data.pictures import MODES, decode_picture, pillow_warnings_ignored, require_pillow
from partrain.errors import DataError

_NPY_MAGIC = b"\x93NUMPY"


def read_image(path: Path, shape: tuple[int, ...], dtype: str, *, invert: bool = False) -> NDArray[Any]:
    """Read an image file in the form of the images that a network was trained on.

    Parameters
    ----------
    path : a PNG, JPEG, BMP or WebP file, or an .npy file with an array (C,H,W), or (H,W) for one channel.
    shape : (C,H,W) of the network's images.
    dtype : of the network's images: "uint8" (0 to 255), or "float32" in units that only an array can be in.
    invert : make dark light, and light dark: 255 - x.

    Returns
    -------
    array (C,H,W), in the units of the network's images: uint8 of a picture, float32 of an array.

    Raises
    ------
    DataError
        The file is no image, or none that fits.
    MissingPackage
        The file is a picture, and Pillow is not installed.
    """
    require_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_NPY_MAGIC))
    except OSError as error:
        raise unreadable(path, error) from None
    if path.suffix == ".npy" or start == _NPY_MAGIC:
        image = _read_array(path, shape, dtype)
    else:
        image = _read_picture(path, shape, dtype)
    return invert_image(image, dtype, str(path)) if invert else image


def invert_image(image_CHW: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Return an image with dark for light and light for dark: 255 - x.

    Raises
    ------
    DataError
        The network's images, of this dtype, have no range in which to invert; `name` is what the image is called.
    """
    if dtype != "uint8":
        raise DataError(f"{name}: cannot be inverted: the network's images are numbers of any range.")
    return 255 - image_CHW


def _read_array(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    array = map_array(path)
    fitting = [shape, shape[1:]] if shape[0] == 1 else [shape]
    if array.shape not in fitting:
        raise DataError(
            f"{path}: its array has shape {_text(array.shape)}; the network takes one image of shape "
            f"{' or '.join(_text(s) for s in fitting)}."
        )
    return pixel_values(array.reshape(shape), dtype, str(path))


def pixel_values(array: NDArray[Any], dtype: str, name: str) -> NDArray[np.float32]:
    """Return an array of numbers as float32, in the units of a network's images.

    Raises
    ------
    DataError
        It holds what is no number, or numbers that are in other units; `name` is what the array is called.
    """
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name}: its array has dtype {array.dtype}, expected numbers. Convert it with .astype.")
    values = np.array(array, np.float32, order="C")
    if not np.isfinite(values).all():
        raise DataError(f"{name}: its array holds NaN or infinity, expected finite numbers.")
    if dtype == "uint8":
        if values.min() < 0 or values.max() > 255:
            raise DataError(
                f"{name}: its array has values from {values.min():g} to {values.max():g}; the network's images are of "
                "0 to 255."
            )
        if array.dtype.kind == "f" and 0 < values.max() <= 1:
            raise DataError(
                f"{name}: its array has values from 0 to 1; the network's images are of 0 to 255. Multiply it by 255."
            )
    return values


def _read_picture(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[np.uint8]:
    channels = shape[0]
    if dtype != "uint8" or channels not in MODES:
        raise DataError(
            f"{path}: the network's images are {dtype} with {channels} channels, which no picture is. Give an .npy "
            f"file with an array of shape {_text(shape)}."
        )
    require_pillow(f"{path}: reading pictures (not arrays, .npy)")
    with pillow_warnings_ignored():
        return decode_picture(path, shape)


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
