"""Loads a directory of images as arrays: decodes it once, and caches the arrays as memory-mapped files.

The key of a cached pack is a digest of the names, sizes and times of all images, their target size and channels, and
the version of the decoder. A pack appears in the cache atomically, and its digest is verified at each use.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from partrain.data.array_files import CLASS_NAMES, NUM_VALIDATION, map_array
from partrain.data.arrays import load_arrays
from partrain.data.dataset import Dataset
from partrain.data.image_decoding import decode_image, pillow_warnings_ignored, require_pillow
from partrain.data.image_directory import MAX_LISTED, ImageDirectory, ImageFile, list_images
from partrain.data.image_tree import describe_ignored
from partrain.data.npy_writer import NpyWriter
from partrain.data.split_name import SplitName
from partrain.errors import DataError, ResourceError
from partrain.system.cache_directories import user_cache_directory
from partrain.system.process_limits import reporting_process_limit
from partrain.system.standard_streams import is_terminal
from partrain.system.terminal_text import printable
from partrain.system.trusted_directory import TrustedDirectory
from partrain.system.work_progress import WorkProgress

# Version of the decoding and of the files of a pack. Another version recreates all packs.
PACK_FORMAT = 3
# Images queued per decoding thread.
QUEUED_PER_DECODER = 16

_DIRECTORY = "packed"
_INDEX = "pack.json"


class _Index(BaseModel):
    """The content of the file beside the arrays of a pack."""

    model_config = ConfigDict(strict=True)
    format: Literal[3]
    digest: str
    broken: dict[str, str]  # name of each image that was left out -> what is wrong with it


def load_image_directory(
    path: str | Path,
    size: tuple[int, int],
    channels: int,
    on_broken: str,
    *,
    num_decoders: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Dataset:
    """Load a directory of images as the data set "folder"; decode the images unless they are in the cache.

    Parameters
    ----------
    path : see `list_images`.
    size : rows and columns to which each image is resized.
    channels : 1 (grey) or 3 (colour).
    on_broken : "error", or "skip" to leave out images that cannot be decoded.
    num_decoders : the number of threads that decode.
    say : called with a line before anything that takes time, and about files that are no images.
    warn : called with the images that are left out, and if a cached pack was damaged.

    Raises
    ------
    DataError
        The directory (see `list_images`) or one of its images cannot be used.
    MissingPackage
        Pillow is not installed.
    ResourceError
        The cache cannot be written, or another user could change it.

    Side effects
    ------------
    Writes into the directory `packed` of `user_cache_directory()`, and holds a lock there meanwhile.
    """
    decoder = require_pillow(f"{path}: a directory of images")
    directory = list_images(path)
    _report_notes(directory, say)
    shape = (channels, *size)
    name = _pack_name(directory, decoder, shape)
    place = user_cache_directory() / _DIRECTORY

    def pack_images(target: Path) -> None:
        _pack(directory, shape, target, num_decoders, say)

    try:
        with TrustedDirectory.open(place, make=True) as packs:
            dataset = _open_or_make_pack(packs, name, pack_images, say, warn)
    except PermissionError as error:
        raise ResourceError(f"{place}: the decoded images cannot be kept there: {error.strerror or error}.") from None
    except OSError as error:
        raise ResourceError(
            f"{place}: the decoded images cannot be written there: {error.strerror or error}. Free some disk space, or "
            "choose another cache directory with XDG_CACHE_HOME."
        ) from None
    assert dataset is not None
    pack, broken = dataset
    _report_broken(directory.root, broken, on_broken, warn)
    skipped = tuple(printable(name) for name in broken)
    return replace(pack.renamed("folder", str(directory.root), skipped), ignored=directory.ignored)


def _report_notes(directory: ImageDirectory, say: Callable[[str], None]) -> None:
    for note in directory.notes:
        say(f"{directory.root}: {note}")
    if directory.ignored:
        say(f"{directory.root}: {describe_ignored(directory.ignored)}")


def _pack_name(directory: ImageDirectory, decoder: str, shape: tuple[int, ...]) -> str:
    """Return the name of the pack: it depends on all that decides its content."""
    identity = (PACK_FORMAT, decoder, shape, directory.class_names, directory.fingerprint())
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]


def _open_or_make_pack(
    packs: TrustedDirectory,
    name: str,
    make: Callable[[Path], None],
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> tuple[Dataset, dict[str, str]] | None:
    """Return the data set of a pack and its broken images, after making the pack if it is missing."""
    found = _open_pack(packs, name, warn)
    if found is not None:
        return found
    with packs.locked(f"{name}.lock", lambda: say("another process is decoding the same images; waiting")):
        found = _open_pack(packs, name, warn)  # another process may have packed the images meanwhile
        if found is None:
            make(packs.pinned_path / name)
            found = _open_pack(packs, name, warn)
    return found


def _report_broken(root: Path, broken: dict[str, str], on_broken: str, warn: Callable[[str], None]) -> None:
    """Report the images that cannot be decoded.

    Raises
    ------
    DataError
        There are some, and `on_broken` is "error".
    """
    if not broken:
        return
    count = "1 image" if len(broken) == 1 else f"{len(broken):,} images"
    lines = _list_broken(broken)
    if on_broken == "error":
        head = f"{root}: {count} cannot be used. Replace them, or set `data.on_broken: skip` to leave them out:"
        raise DataError("\n  ".join([head, *lines]))
    warn("\n  ".join([f"{root}: left out {count} that cannot be used:", *lines]))


def _list_broken(broken: dict[str, str]) -> list[str]:
    lines = [printable(f"{name}: {problem}") for name, problem in list(broken.items())[:MAX_LISTED]]
    return [*lines, f"and {len(broken) - MAX_LISTED:,} more"] if len(broken) > MAX_LISTED else lines


def _open_pack(
    packs: TrustedDirectory, name: str, warn: Callable[[str], None]
) -> tuple[Dataset, dict[str, str]] | None:
    """Return the data set of a pack and its broken images; None if there is no pack, or a damaged one.

    Raises
    ------
    PermissionError
        Another user could have written the pack.
    """
    pinned = packs.pinned_path / name
    try:
        with packs.subdirectory(name) as pack:
            pinned = pack.pinned_path
            for file in os.listdir(pack.descriptor):
                pack.require_trusted_file(file)
            index = _Index.model_validate_json(pack.read(_INDEX))
            dataset = _with_files(load_arrays(pinned), pinned)
        if dataset.digest != index.digest:
            raise ValueError("its content has another digest")
    except FileNotFoundError:
        return None
    except (DataError, ValueError, pydantic.ValidationError) as error:
        place = packs.path / name
        problem = str(error).replace(str(pinned), str(place))
        warn(f"{place}: the cached arrays of the images are damaged ({problem}); decoding the images again")
        shutil.rmtree(packs.pinned_path / name, ignore_errors=True)
        return None
    return dataset, index.broken


def _with_files(dataset: Dataset, pack: Path) -> Dataset:
    """Return the data set of a pack with the image files of its examples."""
    splits = {}
    for name, split in dataset.splits.items():
        files = map_array(pack / f"{name}_files.npy")
        if files.dtype.kind != "S" or files.shape != (split.size,):
            raise ValueError("its list of files does not fit its images")
        splits[name] = replace(split, files=files)
    return replace(dataset, splits=splits)


def _pack(
    directory: ImageDirectory, shape: tuple[int, ...], place: Path, num_decoders: int, say: Callable[[str], None]
) -> None:
    """Decode the images into arrays at `place`."""
    say(f"decoding {directory.size:,} images of {directory.root}, the first time only")
    for left in place.parent.glob(f"{place.name}.*.part"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".part", dir=place.parent))
    try:
        with (
            WorkProgress("decoding", "images", directory.size, say, has_bar=is_terminal(sys.stderr)) as progress,
            pillow_warnings_ignored(),
            reporting_process_limit(),
            ThreadPoolExecutor(num_decoders) as decoders,
        ):

            def decode(images: Sequence[ImageFile]) -> Iterator[tuple[ImageFile, NDArray[np.uint8] | str]]:
                for result in _decode(images, shape, decoders, QUEUED_PER_DECODER * num_decoders):
                    yield result
                    progress.step()

            try:
                broken = _write_arrays(temporary, directory, shape, decode)
            except BaseException:
                decoders.shutdown(wait=True, cancel_futures=True)
                raise
        _require_examples(directory, temporary, broken)
        index = {"format": PACK_FORMAT, "digest": load_arrays(temporary).digest, "broken": broken}
        (temporary / _INDEX).write_text(json.dumps(index))
        for file in temporary.iterdir():
            file.chmod(0o644)  # whatever the umask: a pack that others can write to is refused
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_arrays(
    pack: Path,
    directory: ImageDirectory,
    shape: tuple[int, ...],
    decode: Callable[[Sequence[ImageFile]], Iterator[tuple[ImageFile, NDArray[np.uint8] | str]]],
) -> dict[str, str]:
    """Write the arrays that `load_arrays` loads; return what is wrong with each broken image, by its name."""
    broken: dict[str, str] = {}
    labels_of = {name: label for label, name in enumerate(directory.class_names)}
    for source, splits in (
        (SplitName.TRAIN, (SplitName.TRAIN, SplitName.VALIDATION)),
        (SplitName.TEST, (SplitName.TEST,)),
    ):
        labels: list[int] = []
        files: list[bytes] = []
        with NpyWriter(pack / f"{source}_images.npy", shape, np.uint8) as images:
            for split in splits:
                first = len(labels)
                for image, decoded in decode(directory.splits[split]):
                    if isinstance(decoded, str):
                        broken[image.name] = decoded.removeprefix(f"{image.path}: ")
                    else:
                        images.append(decoded[np.newaxis])
                        labels.append(labels_of[image.class_name])
                        files.append(os.fsencode(image.file))
                if split == SplitName.VALIDATION:
                    np.save(pack / f"{NUM_VALIDATION}.npy", np.int64(len(labels) - first))
        np.save(pack / f"{source}_labels.npy", np.array(labels, np.int64))
        np.save(pack / f"{source}_files.npy", np.array(files, np.bytes_))
    np.save(pack / f"{CLASS_NAMES}.npy", np.array(directory.class_names))
    return broken


def _require_examples(directory: ImageDirectory, pack: Path, broken: dict[str, str]) -> None:
    """Check that training and test examples remain without the broken images.

    Raises
    ------
    DataError
        There are none.
    """
    for source in (SplitName.TRAIN, SplitName.TEST):
        if not len(np.load(pack / f"{source}_labels.npy", mmap_mode="r")):
            head = f"{directory.root}: none of the {source} images can be used:"
            raise DataError("\n  ".join([head, *_list_broken(broken)]))


def _decode(
    images: Sequence[ImageFile], shape: tuple[int, ...], decoders: ThreadPoolExecutor, num_queued: int
) -> Iterator[tuple[ImageFile, NDArray[np.uint8] | str]]:
    """Yield each image, in order, with its array, or with a description of what is wrong with it."""

    def attempt(image: ImageFile) -> NDArray[np.uint8] | str:
        try:
            return decode_image(image.path, shape)
        except DataError as error:  # not for want of memory: then the pack would depend on the machine
            return str(error)

    queue: collections.deque[tuple[ImageFile, Future[Any]]] = collections.deque()
    for image in images:
        queue.append((image, decoders.submit(attempt, image)))
        if len(queue) > num_queued:
            earliest, future = queue.popleft()
            yield earliest, future.result()
    for earliest, future in queue:
        yield earliest, future.result()
