"""Decodes an image file into an array with the channels and size that a network takes.

Training and prediction use the same decoding. Its details are fixed, because results depend on them:

- Of an animation the first frame is used. The EXIF orientation is applied.
- Transparent pixels become white. 16-bit grey is rounded to 8 bits; of 16-bit colour the high byte is taken. Which
  pixels are transparent is decided before.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.file_access import unreadable
from partrain.errors import DataError, MissingPackage, ResourceError
from partrain.system.memory_limits import MemoryBudget

if TYPE_CHECKING:
    from PIL.Image import Image

# A larger image is not decoded: a file of a few kilobytes can expand to gigabytes of pixels.
MAX_PIXELS = 64 * 1024**2
# The suffixes of image files, and Pillow's names of their formats.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
# Pillow's mode for each number of channels.
MODES = {1: "L", 3: "RGB"}
# Pillow's modes of images whose values have a fixed range. Others are 32-bit numbers, of which nobody knows what is
# white, and CIE Lab.
_CONVERTIBLE_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
# Names of the pixels in a PNG file (Pillow): 2-bit and 4-bit grey, whose values Pillow multiplies by this factor, but
# not the value that is declared transparent; and 16-bit colour, with the high and the low bytes.
_GREY_FACTORS = {"L;2": 85, "L;4": 17}
_HIGH_BYTES, _LOW_BYTES = "RGB;16B", "RGB;16L"
_STRIP_PIXELS = 1024**2
# The tag of EXIF that says how an image is turned, and its values for a quarter turn.
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)
# Tags of TIFF.
_TILE_WIDTH, _TILE_HEIGHT = 322, 323

# Of all threads that decode.
_budget = MemoryBudget()

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
    libraries = {"libjpeg": "jpg", "libwebp": "webp", "libtiff": "libtiff"}
    versions = [f"{name} {PIL.features.version(feature)}" for name, feature in libraries.items()]
    return ", ".join([PIL.__version__, *versions])


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
        The image does not fit into memory, which is checked as well.
    """
    channels, rows, columns = shape
    image = _decode(path, MODES[channels], lambda width, height: (columns, rows))
    return np.ascontiguousarray(np.asarray(image, np.uint8).reshape(rows, columns, channels).transpose(2, 0, 1))


def decode_grey(path: Path, max_side: int) -> NDArray[np.uint8]:
    """Return an image in grey, (H,W); if it is higher or wider than `max_side`, it is shrunk in proportion.

    Raises
    ------
    DataError, ResourceError
        As for `decode_image`.
    """

    def within(width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, max_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    return np.array(_decode(path, "L", within))


def image_size(path: Path) -> tuple[int, int]:
    """Return the rows and columns of an image, upright, from the file's header.

    Raises
    ------
    DataError, ResourceError
        As for `decode_image`; damage behind the header is not found.
    """
    with _opened(path) as image:
        columns, rows = image.size
        is_turned = image.getexif().get(_ORIENTATION) in _TURNED
    return (columns, rows) if is_turned else (rows, columns)


def _decode(path: Path, mode: str, size: Callable[[int, int], tuple[int, int]]) -> Image:
    """Return an image in grey or RGB; its new width and height are a function of those of the file."""
    with (
        _opened(path) as image,
        _budget.reserved(_peak_bytes(image), str(path), "Make the image smaller."),
    ):
        try:
            return _convert(path, image, mode, size)
        finally:
            image.close()  # frees its pixels before the reservation ends; the end of `with image` does not


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image; errors within the block, too, become messages."""
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            width, height = _decoded_size(image)
            if width * height > MAX_PIXELS:
                raise _too_large(path, f"{width:,} x {height:,} pixels")
            yield image
    except PIL.Image.DecompressionBombError:
        raise _too_large(path, "more pixels than Pillow opens") from None
    except PIL.UnidentifiedImageError:
        raise DataError(f"{path}: is not a PNG, JPEG, BMP, WebP, GIF or TIFF image.") from None
    except MemoryError:
        raise ResourceError(f"{path}: does not fit into memory. Make the image smaller.") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise DataError(f"{path}: is damaged: {error}.") from None


def _convert(path: Path, image: Image, mode: str, size: Callable[[int, int], tuple[int, int]]) -> Image:
    """Decode an opened image; parameters as for `_decode`."""
    import PIL.Image

    upright = _over_white(path, image)
    converted = upright if upright.mode == mode else upright.convert(mode)  # it would copy
    return converted.resize(size(*converted.size), PIL.Image.Resampling.BILINEAR)


def _peak_bytes(image: Image) -> int:
    """Return the memory that decoding an opened image takes at most, from its header.

    Measured, in bytes per pixel: 4 of most photographs and of 16-bit grey, 8 of rotated ones, 12 of progressive CMYK,
    16 of WebP; 18 with transparency, 24 with that of WebP and of 16-bit colour.
    """
    is_costly = image.format == "WEBP" or any(tile[3] == _HIGH_BYTES for tile in getattr(image, "tile", ()))
    if image.has_transparency_data:
        bytes_per_pixel = 25 if is_costly else 19
    elif image.mode == "CMYK" or is_costly:
        bytes_per_pixel = 17
    else:
        bytes_per_pixel = 9
    width, height = _decoded_size(image)
    return bytes_per_pixel * width * height


def _decoded_size(image: Image) -> tuple[int, int]:
    """Return width and height of what is decoded at once: of the image, or of a larger tile of a TIFF file."""
    tags = getattr(image, "tag_v2", {})
    width, height = int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_HEIGHT, 0))
    return (width, height) if width * height > image.width * image.height else image.size


def _over_white(path: Path, image: Image) -> Image:
    """Return the upright image with 8 bits per channel; transparent pixels become white."""
    import PIL.Image
    import PIL.ImageOps

    # Loading the image forgets how its file stores the pixels.
    tiles = getattr(image, "tile", ()) if image.format == "PNG" else ()
    stored = tiles[0][3] if tiles else None
    image.load()
    upright = image
    PIL.ImageOps.exif_transpose(upright, in_place=True)  # it copies otherwise, also an image that is upright
    transparent = upright.info.get("transparency")
    opacity = None
    # Pillow before 11.3 has PNGs of 16-bit grey in its mode for 32 bits.
    if upright.mode.startswith("I;16") or (upright.mode == "I" and image.format == "PNG"):
        rounded, opacity = _rounded_to_8_bits(upright, transparent)
        upright = PIL.Image.fromarray(rounded)
    elif upright.mode not in _CONVERTIBLE_MODES:
        raise DataError(f"{path}: has pixels of the kind {upright.mode!r}. Convert it to 8 or 16 bits per channel.")
    elif stored in _GREY_FACTORS and transparent is not None:
        upright.info["transparency"] = transparent * _GREY_FACTORS[stored] & 255
    elif stored == _HIGH_BYTES and transparent is not None:
        high, low = np.asarray(upright), np.asarray(PIL.ImageOps.exif_transpose(_low_bytes(path)))
        transparent_high, transparent_low = np.divmod(np.array(transparent), 256)
        opacity = (high != transparent_high).any(axis=2) | (low != transparent_low).any(axis=2)
    if opacity is not None:
        upright.info.pop("transparency", None)
        upright.putalpha(PIL.Image.fromarray(opacity.astype(np.uint8) * 255))
    if not upright.has_transparency_data:
        return upright
    upright = upright.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", upright.size, "white"), upright)


def _rounded_to_8_bits(image: Image, transparent: int | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Return the pixels of 16-bit grey divided by 257, rounded; and which are opaque, if one value is transparent.

    Pillow would clip the values to 255. In strips, because an array of all values takes several times their size.
    """
    width, height = image.size
    rounded = np.empty((height, width), np.uint8)
    opacity = None if transparent is None else np.empty((height, width), np.bool_)
    strip_rows = max(1, _STRIP_PIXELS // width)
    for first in range(0, height, strip_rows):
        rows = slice(first, min(height, first + strip_rows))
        values = np.asarray(image.crop((0, rows.start, width, rows.stop)))
        rounded[rows] = (values // 257).astype(np.uint8) + (values % 257 > 128)
        if opacity is not None:
            opacity[rows] = values != transparent
    return rounded, opacity


def _low_bytes(path: Path) -> Image:
    """Return the low bytes of a PNG of 16-bit colour, which Pillow leaves out.

    Pillow decodes the same file as if its 16-bit numbers began with their low byte.
    """
    import PIL.Image

    with PIL.Image.open(path, formats=("PNG",)) as image:
        png: Any = image
        png.tile = [(*tile[:3], _LOW_BYTES) for tile in png.tile]  # tuples, from Pillow 11 on with names
        image.load()
    return image


def _too_large(path: Path, size: str) -> DataError:
    return DataError(f"{path}: has {size}; at most {MAX_PIXELS:,} are decoded. Make the image smaller.")
