"""Decodes an image file into an array with the channels and size that a network takes.

Training and prediction use the same decoding. Its details are fixed, because results depend on them:

- Of an animation the first frame is used. The EXIF orientation is applied.
- Transparent pixels become white. 16-bit grey is rounded to 8 bits.
- One channel is luma (ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B); three channels are R, G, B, as Pillow converts
  palettes and CMYK; colour profiles are not applied.
- The image is resized with Pillow's BILINEAR filter, which averages over the covered pixels when it shrinks an image.
  The whole image is resized to exactly the target size; if the proportions differ, it is stretched.

Shapes: C, H, W channels, rows, columns.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from partrain.data.file_access import unreadable
from partrain.errors import DataError, MissingPackage, ResourceError

if TYPE_CHECKING:
    from PIL.Image import Image

# A larger image is not decoded: a file of a few kilobytes can expand to gigabytes of pixels.
MAX_PIXELS = 64 * 1024**2
# The suffixes of image files, and Pillow's names of their formats.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
# Pillow's mode for each number of channels.
MODES = {1: "L", 3: "RGB"}

# The exceptions that Pillow raises for truncated or altered files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)


def require_pillow(purpose: str) -> str:
    """Return the versions of Pillow and its libraries.

    Raises
    ------
    MissingPackage
        Pillow is not installed; the message names the `purpose`.
    """
    try:
        import PIL.features
    except ImportError:
        raise MissingPackage("pillow", "images", purpose) from None
    return f"{PIL.__version__}, libjpeg {PIL.features.version('jpg')}, libwebp {PIL.features.version('webp')}"


@contextlib.contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Suppress Pillow's warnings, for example about odd metadata.

    Warning filters apply to all threads: enter this in the thread that waits for the others.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def decode_image(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an image as an array of the given shape (C,H,W), with one or three channels.

    Raises
    ------
    DataError
        The file is not an image, is damaged, or has more than MAX_PIXELS pixels, which is checked before decoding.
    ResourceError
        The image does not fit into memory.
    """
    import PIL.Image
    import PIL.ImageOps

    channels, rows, columns = shape
    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width:,} x {image.height:,} pixels")
            upright = PIL.ImageOps.exif_transpose(image)
            converted = _convert(upright, MODES[channels])
            small = converted.resize((columns, rows), PIL.Image.Resampling.BILINEAR)
    except PIL.Image.DecompressionBombError:
        raise _too_large(path, "more pixels than Pillow opens") from None
    except PIL.UnidentifiedImageError:
        raise DataError(f"{path}: is not a PNG, JPEG, BMP or WebP image.") from None
    except MemoryError:
        raise ResourceError(f"{path}: does not fit into memory. Make the image smaller.") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise DataError(f"{path}: is damaged: {error}.") from None
    return np.ascontiguousarray(np.asarray(small, np.uint8).reshape(rows, columns, channels).transpose(2, 0, 1))


def _convert(image: Image, mode: str) -> Image:
    """Convert an image to grey or RGB with 8 bits per channel, over a white background."""
    import PIL.Image

    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255
        values = np.asarray(image).astype(np.float64) / 257
        image = PIL.Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return image.convert(mode)


def _too_large(path: Path, size: str) -> DataError:
    return DataError(f"{path}: has {size}; at most {MAX_PIXELS:,} are decoded. Make the image smaller.")
