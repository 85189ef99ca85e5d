"""Looks at some images of a directory, to propose the size and the channels to read them with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np

from partrain.data.image_decoding import decode_image, image_size, pillow_warnings_ignored, require_pillow
from partrain.data.image_directory import list_images
from partrain.data.split_name import SplitName
from partrain.errors import DataError

# So many images are looked at; of so many of these, also the colours.
_NUM_SIZES, _NUM_COLOURS = 200, 24
# Images are proposed to be resized to at most so many rows and columns, and to a multiple that can be halved twice.
_MAX_SIDE, _MIN_SIDE, _MULTIPLE = 64, 8, 4
# Colours of grey images differ by so much after JPEG compression.
_GREY_TOLERANCE = 8


@dataclass(frozen=True)
class ImageSurvey:
    """What a directory of images contains.

    Attributes
    ----------
    class_names : the classes.
    num_images : the number of images in each split.
    class_sizes : the number of images of each class, in all splits.
    median_size : the rows and columns of most images that were looked at.
    same_size : whether all of these have this size.
    size : rows and columns to resize the images to.
    channels : 1 if those that were looked at are grey, otherwise 3.
    broken : those that cannot be read.
    """

    class_names: tuple[str, ...]
    num_images: dict[SplitName, int]
    class_sizes: dict[str, int]
    median_size: tuple[int, int]
    same_size: bool
    size: tuple[int, int]
    channels: int
    broken: tuple[Path, ...]


def survey_images(path: str) -> ImageSurvey:
    """Return what a directory of images contains; some images are opened.

    Raises
    ------
    MissingPackage
        Pillow is not installed.
    DataError
        It is not a directory of images (see `list_images`), or none of its images can be read.
    """
    require_pillow("init --data")
    directory = list_images(path)
    images = [image for split in directory.splits.values() for image in split]
    sample = [image.path for image in images[:: max(1, len(images) // _NUM_SIZES)]]
    sizes, broken, colours = [], [], []
    with pillow_warnings_ignored():
        for index, file in enumerate(sample):
            try:
                sizes.append(image_size(file))
                if index % max(1, len(sample) // _NUM_COLOURS) == 0:
                    colours.append(_is_colour(file))
            except DataError:
                broken.append(file)
    if not colours or not sizes:
        raise DataError(f"{path}: the first images that were looked at cannot be read, such as {sample[0]}.")
    middle = median_low([rows for rows, _ in sizes]), median_low([columns for _, columns in sizes])
    same = len(set(sizes)) == 1
    return ImageSurvey(
        directory.class_names,
        {split: len(found) for split, found in directory.splits.items()},
        dict(Counter(image.class_name for image in images)),
        middle,
        same,
        middle if same and max(middle) <= _MAX_SIDE and min(middle) >= _MIN_SIDE else _proposed_size(middle),
        3 if any(colours) else 1,
        tuple(broken),
    )


def _is_colour(file: Path) -> bool:
    pixels_CHW = decode_image(file, (3, 32, 32)).astype(np.int16)
    return bool(np.abs(pixels_CHW - pixels_CHW[[1, 2, 0]]).max() > _GREY_TOLERANCE)


def _proposed_size(sides: Sequence[int]) -> tuple[int, int]:
    scale = min(1.0, _MAX_SIDE / max(sides))
    rows, columns = (max(_MIN_SIDE, _MULTIPLE * round(side * scale / _MULTIPLE)) for side in sides)
    return rows, columns
