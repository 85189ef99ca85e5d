"""Makes a split of an array of images and one of labels, as people save them: checks both, and converts what is exact.

Channels-last images (N,H,W,C) become (N,C,H,W): in memory by a copy; in a large file by a view, and each process moves
the axis of the images that it reads. Shapes: N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from partrain.data.array_files import NamedArray
from partrain.data.dataset import Split
from partrain.data.mapped_arrays import chunks, is_streamed
from partrain.data.measurement_cache import MeasurementCache
from partrain.errors import DataError
from partrain.system.memory_limits import require_memory

MAX_LABEL = 65_535

# The order of the axes of images: (N,C,H,W) or (N,H,W,C). None: (N,C,H,W), and what looks like (N,H,W,C) is refused.
Layout = Literal["channels_first", "channels_last"] | None

# The numbers of channels that photographs have.
_USUAL_CHANNELS = (1, 3, 4)
# Images are compared with their conversion in pieces of this many.
_PIECE = 512
_USE_LESS = "Use a smaller part of the data, or free some memory."


def split_of_arrays(
    images: NamedArray,
    labels: NamedArray,
    layout: Layout = None,
    measurements: MeasurementCache | None = None,
    key: str = "",
) -> Split:
    """Check images and labels, and make a split of them.

    Parameters
    ----------
    images, labels : the arrays, with their names in messages.
    layout : the order of the axes of the images.
    measurements, key : cache of measurements, if the files are large, and the key of these images in it.

    Raises
    ------
    DataError
        An array is not as `load_arrays` describes it.
    ResourceError
        A converted array does not fit into memory.
    """
    name, pixels = _convert_dtype(images)
    _require_shape(name, pixels, layout)
    numbers = _checked_labels(labels)
    if len(pixels) != len(numbers):
        raise DataError(
            f"{name} contains {len(pixels):,} images, but {labels[0]} contains {len(numbers):,} labels. "
            "Give each image one label."
        )
    if measurements is None:
        _require_finite(name, pixels)
    else:
        measurements.get(f"{key} are finite", lambda: _require_finite(name, pixels))
    return Split(_channels_first(name, pixels, layout), _as_int64(labels[0], numbers))


def _convert_dtype(named: NamedArray) -> NamedArray:
    """Return images as uint8 or float32; other floating-point numbers are converted if float32 represents them all."""
    name, images = named
    if images.dtype in (np.uint8, np.float32):
        return named
    head = f"{name}: has dtype {images.dtype}, expected uint8 or float32."
    if images.dtype.kind == "b":
        raise DataError(f"{head} Convert it with numpy.uint8(255) * images.")
    if images.dtype.kind in "iu":
        raise DataError(
            f"{head} Convert values from 0 to 255 with .astype(numpy.uint8), others with .astype('float32')."
        )
    if images.dtype.kind != "f" or is_streamed(images):
        raise DataError(f"{head} Convert it with .astype(numpy.float32).")
    require_memory(4 * images.size, name, "Convert it with .astype(numpy.float32), and save it as an .npy file.")
    with np.errstate(over="ignore"):
        converted = np.array(images, np.float32)
    for first in range(0, len(images) if images.ndim else 0, _PIECE):
        before, after = images[first : first + _PIECE], converted[first : first + _PIECE]
        differs = (before != after) & ~np.isnan(before)  # NaN is reported later, with its place
        if differs.any():
            example = first + int(np.argwhere(differs)[0][0])
            raise DataError(
                f"{head} float32 cannot represent all of its values exactly: {before[differs][0]!s} in example "
                f"{example} would be rounded. If rounding is right, convert it with .astype(numpy.float32); if it "
                "holds bytes divided by 255, with numpy.rint(255 * images).astype(numpy.uint8)."
            )
    return name, converted


def _require_shape(name: str, images: NDArray[Any], layout: Layout) -> None:
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{name}: has shape {images.shape}, expected (examples, rows, columns) or (examples, "
            "channels, rows, columns), none of them 0."
        )
    if not images.flags.c_contiguous:
        raise DataError(f"{name}: is not C-contiguous. Save it in C order: numpy.ascontiguousarray.")
    looks_channels_last = (
        images.ndim == 4 and images.shape[3] in _USUAL_CHANNELS and images.shape[1] not in _USUAL_CHANNELS
    )
    if layout is None and looks_channels_last:
        _, rows, columns, channels = images.shape
        raise DataError(
            f"{name}: has shape {images.shape}, which looks like (examples, rows, columns, channels); partrain expects "
            "(examples, channels, rows, columns). Set data.layout: channels_last (in Python layout='channels_last', "
            "for data show and data pack --layout channels_last), or move the last axis: "
            f"numpy.moveaxis(images, 3, 1). If these are {rows} channels of {columns} x {channels} pixels, set "
            "channels_first."
        )


def _channels_first(name: str, images: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return images as (N,C,H,W): C-contiguous, except for a view of a large file with the channels last."""
    if images.ndim == 3:
        N, H, W = images.shape
        return images.reshape(N, 1, H, W)  # a memmap stays a memmap
    if layout != "channels_last":
        return images
    moved = np.moveaxis(images, 3, 1)
    if moved.flags.c_contiguous:
        return images.reshape(moved.shape)
    if is_streamed(images):
        return moved
    require_memory(images.nbytes, name, _USE_LESS)
    return np.array(moved, order="C", subok=False)


def _checked_labels(named: NamedArray) -> NDArray[Any]:
    """Return labels (N,), of any integer type; labels (N,1), as Keras and MedMNIST save them, lose their last axis."""
    name, labels = named
    shape = labels.shape
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        one_hot = " Of one-hot labels give numpy.argmax(labels, axis=1)." if labels.ndim == 2 else ""
        raise DataError(
            f"{name}: has dtype {labels.dtype} and shape {shape}, expected integers of shape "
            f"(examples,) or (examples, 1): the number of each example's class.{one_hot}"
        )
    return labels


def _as_int64(name: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest > MAX_LABEL:
        raise DataError(
            f"{name}: has labels from {smallest} to {largest}, expected 0 to {MAX_LABEL:,}. Number the classes from 0."
        )
    require_memory(8 * labels.size, name, _USE_LESS)
    return np.array(labels, np.int64)


def _require_finite(name: str, images: NDArray[Any]) -> None:
    if images.dtype != np.float32:
        return
    num_checked = 0
    for chunk in chunks(images):
        finite = np.isfinite(chunk)
        if not finite.all():
            position = num_checked + int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(position, images.shape))
            raise DataError(
                f"{name}: the value at {index} is {images[index]}, expected finite numbers. Correct "
                f"or remove example {index[0]}."
            )
        num_checked += chunk.size
