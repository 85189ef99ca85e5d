"""The images that a network is to classify: finds and reads them, and compares them with the training images.

Shapes: C, H, W channels, rows, columns.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.trained_run import TrainedRun
from partrain.data.file_access import unreadable
from partrain.data.image_files import invert_image, read_image
from partrain.data.image_tree import describe_ignored, is_image, suffix_of
from partrain.errors import DataError, ResourceError
from partrain.system.terminal_text import printable

# An image is unlike the training images if it is farther from them than this, see `_distance`. Of MNIST's images none
# is farther than 1, of photographs in general few are; ink on paper is farther from MNIST's images.
MAX_DISTANCE = 1.25
# A warning names this many images.
MAX_NAMED = 5


def image_paths(paths: Sequence[Path], say: Callable[[str], None]) -> tuple[list[Path], list[DataError]]:
    """Return the files themselves, and the image files and .npy arrays at any depth below the directories.

    Hidden files and directories are left out, and links to directories.

    Parameters
    ----------
    paths : files and directories; they are not opened.
    say : called with the numbers of files in a directory that are no images.

    Returns
    -------
    The paths, and an error for each directory that cannot be read or contains no image.
    """
    found: list[Path] = []
    errors: list[DataError] = []
    for path in paths:
        if not os.path.isdir(path):  # unlike Path.is_dir, without an error if the system does not say
            found.append(path)
            continue
        ignored: Counter[str] = Counter()
        try:
            images = [file for file in _files_below(path) if _is_accepted(file, ignored)]
        except OSError as error:
            errors.append(unreadable(Path(error.filename or path), error))
            continue
        if ignored:
            say(f"{path}: {describe_ignored(ignored)}")
        if not images:
            errors.append(DataError(f"{path}: contains no image. Give image files, or a directory of them."))
        found += images
    return found, errors


def _files_below(directory: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, directories, files in os.walk(directory, onerror=fail):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))


def _is_accepted(file: Path, ignored: Counter[str]) -> bool:
    if is_image(file.name) or file.suffix.lower() == ".npy":
        return True
    ignored[suffix_of(file.name)] += 1
    return False


def read_images(
    paths: Sequence[Path], trained: TrainedRun, *, invert: bool, prepare: str | None
) -> tuple[list[tuple[str, NDArray[Any]]], list[DataError | ResourceError]]:
    """Return the images that can be used, (C,H,W) each, with their paths, and an error for each of the others.

    Parameters
    ----------
    paths, invert, prepare : see `read_image`.
    trained : the network.

    Raises
    ------
    MissingPackage
        Pillow is needed, and is not installed.
    """
    shape, dtype = trained.network.input_shape, trained.image_dtype
    images: list[tuple[str, NDArray[Any]]] = []
    errors: list[DataError | ResourceError] = []
    for path in paths:
        try:
            image = read_image(path, shape, dtype, invert=invert, prepare=prepare, layout=trained.config.data.layout)
            images.append((str(path), image))
        except (DataError, ResourceError) as error:
            errors.append(error)
    return images, errors


def warn_if_unlike_training(
    images: Sequence[tuple[str, NDArray[Any]]], trained: TrainedRun, warn: Callable[[str], None], *, invert: bool
) -> None:
    """Warn about images whose brightness or contrast is far from that of the training images, and say what may help.

    Parameters
    ----------
    images : names and images (C,H,W), as the network gets them.
    trained : the network, and the mean and standard deviation of the pixels of its training images.
    invert : the images have been inverted.
    """
    far = [(name, image) for name, image in images if _distance(image, trained) > MAX_DISTANCE]
    if not far:
        return
    names = [printable(name) for name, _ in far[:MAX_NAMED]]
    num_more = len(far) - len(names)
    listed = ", ".join(names) + (f" and {num_more:,} more" if num_more > 0 else "")
    mean, std = (np.mean([statistic(image) for _, image in far]) for statistic in (np.mean, np.std))
    normalisation = trained.normalisation
    warn(
        f"{listed}: brightness or contrast is far from the training images' (pixels "
        f"{mean:.3g} ± {std:.3g}, in training {np.mean(normalisation.mean):.3g} ± {np.mean(normalisation.std):.3g}); "
        f"the prediction may be wrong.{_advice([image for _, image in far], trained, invert)}"
    )


def _distance(image_CHW: NDArray[Any], trained: TrainedRun) -> float:
    """Return how far an image is from the training images in brightness and contrast.

    hypot((m - mean) / std, log(s / std)), where m and s are the mean and the standard deviation of the image, and mean
    and std those of all pixels of the training images; averaged over the channels.
    """
    mean_C, std_C = np.array(trained.normalisation.mean), np.array(trained.normalisation.std)
    pixels = image_CHW.reshape(len(image_CHW), -1).astype(np.float64)
    brightness = ((pixels.mean(axis=1) - mean_C) / std_C).mean()
    contrast = (pixels.std(axis=1) / std_C).mean()
    return float(np.hypot(brightness, np.log(max(contrast, 1e-6))))


def _advice(far: Sequence[NDArray[Any]], trained: TrainedRun, invert: bool) -> str:
    """Return what may bring most of the images close to the training images."""
    if trained.image_dtype != "uint8":
        return ""
    close = [_distance(invert_image(image, "uint8", ""), trained) <= MAX_DISTANCE for image in far]
    advice = []
    if 2 * sum(close) > len(far):
        advice.append("without --invert they would be close" if invert else "with --invert they would be close")
    if _is_like_mnist(trained):
        advice.append("pictures of digits can be prepared with --prepare mnist")
    text = "; ".join(advice)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _is_like_mnist(trained: TrainedRun) -> bool:
    """Return whether the training images were digits like those of MNIST."""
    name, C = trained.config.data.name, trained.network.input_shape[0]
    is_dark = trained.normalisation.mean[0] < trained.normalisation.std[0]
    return C == 1 and is_dark and (name in ("mnist", "synthetic-digits") or len(trained.class_names) == 10)
