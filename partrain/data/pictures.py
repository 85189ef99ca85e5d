"""A picture file as an array: grey or coloured, in the size that a network takes.

The same reading serves training and prediction. It is fixed here, since results depend on it:

- The first frame of an animation; turned as its EXIF orientation says.
- What is transparent shows white. Grey of 16 bits becomes the nearest of 8.
- One channel is luma (ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B); three channels are R, G, B, as Pillow converts
  palettes and CMYK; colour profiles are not applied.
- Resized by Pillow's BILINEAR filter, which averages over the covered pixels where it makes a picture smaller. The
  whole picture is fitted into the size: where its proportions are others, it is stretched.

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

from partrain.data.dataset import unreadable
from partrain.errors import DataError, MissingPackage, ResourceError

if TYPE_CHECKING:
    from PIL.Image import Image

# A picture of more pixels is not decoded: a file of some kilobytes can hold gigabytes of them.
MAX_PIXELS = 64 * 1024**2
# The endings of files that are taken for pictures, and what Pillow calls their formats.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
# Pillow's name for a picture of so many channels.
MODES = {1: "L", 3: "RGB"}

# What Pillow raises for files that are cut off or altered.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)


def require_pillow(purpose: str) -> str:
    """Return the version of Pillow.

    Raises
    ------
    MissingPackage
        It is not installed; `purpose` says what it is needed for.
    """
    try:
        import PIL.features
    except ImportError:
        raise MissingPackage("pillow", "images", purpose) from None
    return f"{PIL.__version__}, libjpeg {PIL.features.version('jpg')}, libwebp {PIL.features.version('webp')}"


@contextlib.contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Keep Pillow from warning, of odd metadata for example: in all threads, so the one that waits enters this."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def decode_picture(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a picture as an array of this shape (C,H,W), of one channel or three.

    Raises
    ------
    DataError
        It is no picture, is damaged, or has more than MAX_PIXELS pixels: that is seen before it is decoded.
    ResourceError
        It does not fit into memory.
    """
    import PIL.Image
    import PIL.ImageOps

    channels, rows, columns = shape
    try:
        with PIL.Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(path, f"{picture.width:,} x {picture.height:,} pixels")
            turned = PIL.ImageOps.exif_transpose(picture)
            converted = _convert(turned, MODES[channels])
            small = converted.resize((columns, rows), PIL.Image.Resampling.BILINEAR)
    except PIL.Image.DecompressionBombError:
        raise _too_large(path, "more pixels than Pillow opens") from None
    except PIL.UnidentifiedImageError:
        raise DataError(f"{path}: is no PNG, JPEG, BMP or WebP picture.") from None
    except MemoryError:
        raise ResourceError(f"{path}: does not fit into memory. Make the picture smaller.") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise DataError(f"{path}: is damaged: {error}.") from None
    return np.ascontiguousarray(np.asarray(small, np.uint8).reshape(rows, columns, channels).transpose(2, 0, 1))


def _convert(picture: Image, mode: str) -> Image:
    """Make a picture grey or coloured, with 8 bits a channel; what is transparent shows white."""
    import PIL.Image

    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        values = np.asarray(picture).astype(np.float64) / 257
        picture = PIL.Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture)
    return picture.convert(mode)


def _too_large(path: Path, what: str) -> DataError:
    return DataError(f"{path}: has {what}; at most {MAX_PIXELS:,} are decoded. Make the picture smaller.")
