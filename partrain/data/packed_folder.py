"""A folder of pictures as arrays: decoded once, and kept in the cache as memory-mapped files.

The pack of a folder is found by a digest of what was packed: the names, sizes and times of all pictures, the size and
channels that they were brought to, and the version of the decoder. It appears in the cache whole or not at all, and
is compared with its own digest when it is used.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from partrain.data.arrays import load_arrays
from partrain.data.dataset import Dataset
from partrain.data.npy_writer import NpyWriter
from partrain.data.picture_folder import LISTED, Picture, PictureFolder, list_pictures
from partrain.data.pictures import decode_picture, pillow_warnings_ignored, require_pillow
from partrain.errors import DataError, ResourceError
from partrain.system.cache_directories import cache_home
from partrain.system.terminal_text import printable

# Of the reading of pictures and of the files of a pack: another number makes all packs anew.
PACK_FORMAT = 1
# Pictures that a decoder has before it for each that it decodes.
AHEAD = 16
# Between two lines that say how far the packing is.
PROGRESS_SECONDS = 5.0

_INDEX = "pack.json"


class _Index(BaseModel):
    """What stands beside the arrays of a pack."""

    model_config = ConfigDict(strict=True)
    format: Literal[1]
    digest: str
    broken: dict[str, str]  # what is wrong with each picture that was left out, by its name


def load_picture_folder(
    path: str | Path,
    size: tuple[int, int],
    channels: int,
    on_broken: str,
    *,
    num_decoders: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Dataset:
    """Load a folder of pictures, as the data set "folder"; decode it, where that has not been done.

    Parameters
    ----------
    path : see `list_pictures`.
    size : rows and columns that each picture is brought to.
    channels : 1 (grey) or 3 (colour).
    on_broken : "error", or "skip" to leave out pictures that cannot be decoded.
    num_decoders : how many threads decode.
    say : gets a line for what takes time.
    warn : told what is left out, and that a pack in the cache was damaged.

    Raises
    ------
    DataError
        The folder cannot be used (`list_pictures`), or a picture of it.
    MissingPackage
        Pillow is not installed.
    ResourceError
        The cache cannot be written.

    Side effects
    ------------
    Writes into the folder `packed` of `cache_home()`, and holds a lock there while it does.
    """
    decoder = require_pillow(f"{path}: a folder of pictures")
    folder = list_pictures(path)
    shape = (channels, *size)
    identity = (PACK_FORMAT, decoder, shape, folder.class_names, folder.fingerprint())
    place = cache_home() / "packed" / hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        dataset = _open_pack(place, warn)
        if dataset is None:
            with _locked(place, say):
                # Another process may have packed the folder meanwhile.
                dataset = _open_pack(place, warn)
                if dataset is None:
                    _pack(folder, shape, place, num_decoders, say)
                    dataset = _open_pack(place, warn)
    except OSError as error:
        raise ResourceError(
            f"{place.parent}: the pictures cannot be kept there as arrays: {error.strerror}. Free some disk, or choose "
            "another folder for caches with XDG_CACHE_HOME."
        ) from None
    assert dataset is not None
    pack, broken = dataset
    _complain(folder.root, broken, on_broken, warn)
    skipped = tuple(printable(name) for name in broken)
    return pack.renamed("folder", str(folder.root), skipped)


def _complain(root: Path, broken: dict[str, str], on_broken: str, warn: Callable[[str], None]) -> None:
    """Tell of pictures that cannot be decoded.

    Raises
    ------
    DataError
        There are some, and they are not to be skipped.
    """
    if not broken:
        return
    count = "1 picture" if len(broken) == 1 else f"{len(broken):,} pictures"
    lines = _list_broken(broken)
    if on_broken == "error":
        head = f"{root}: {count} cannot be used. Replace them, or leave them out with `data.on_broken: skip`:"
        raise DataError("\n  ".join([head, *lines]))
    warn("\n  ".join([f"{root}: {count} that cannot be used left out:", *lines]))


def _list_broken(broken: dict[str, str]) -> list[str]:
    lines = [printable(f"{name}: {problem}") for name, problem in list(broken.items())[:LISTED]]
    return [*lines, f"and {len(broken) - LISTED:,} more"] if len(broken) > LISTED else lines


def _open_pack(place: Path, warn: Callable[[str], None]) -> tuple[Dataset, dict[str, str]] | None:
    """Return the data set of a pack and what is broken in it; None if there is none, or a damaged one."""
    try:
        index = _Index.model_validate_json((place / _INDEX).read_bytes())
        dataset = load_arrays(place)
        if dataset.digest != index.digest:
            raise ValueError("its content has another digest")
    except FileNotFoundError:
        return None
    except (DataError, ValueError, pydantic.ValidationError) as error:
        warn(f"{place}: the arrays made of the pictures are damaged ({error}); they are made anew")
        shutil.rmtree(place, ignore_errors=True)
        return None
    return dataset, index.broken


@contextlib.contextmanager
def _locked(place: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from packing the same folder at the same time."""
    with open(f"{place}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is decoding the same pictures; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pack(
    folder: PictureFolder, shape: tuple[int, ...], place: Path, num_decoders: int, say: Callable[[str], None]
) -> None:
    """Decode the pictures into arrays at `place`."""
    say(f"decoding {folder.size:,} pictures of {folder.root}, the first time only")
    for left in place.parent.glob(f"{place.name}.*.part"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".part", dir=place.parent))
    broken: dict[str, str] = {}
    numbers = {name: number for number, name in enumerate(folder.class_names)}
    progress = _Progress(folder.size, say)
    try:
        with progress, pillow_warnings_ignored(), ThreadPoolExecutor(num_decoders) as decoders:
            try:
                for file, splits in (("train", ("train", "validation")), ("test", ("test",))):
                    labels: list[int] = []
                    num_of_split = 0
                    with NpyWriter(temporary / f"{file}_images.npy", shape, np.uint8) as images:
                        for split in splits:
                            first = len(labels)
                            pictures = folder.splits[split]
                            for picture, decoded in _decode(pictures, shape, decoders, AHEAD * num_decoders):
                                if isinstance(decoded, str):
                                    broken[picture.name] = decoded.removeprefix(f"{picture.path}: ")
                                else:
                                    images.append(decoded[np.newaxis])
                                    labels.append(numbers[picture.class_name])
                                progress.step()
                            num_of_split = len(labels) - first
                    np.save(temporary / f"{file}_labels.npy", np.array(labels, np.int64))
                    if file == "train":
                        np.save(temporary / "validation_examples.npy", np.int64(num_of_split))
            except BaseException:
                decoders.shutdown(wait=True, cancel_futures=True)
                raise
        np.save(temporary / "class_names.npy", np.array(folder.class_names))
        _require_examples(folder, temporary, broken)
        index = {"format": PACK_FORMAT, "digest": load_arrays(temporary).digest, "broken": broken}
        (temporary / _INDEX).write_text(json.dumps(index))
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_examples(folder: PictureFolder, pack: Path, broken: dict[str, str]) -> None:
    """Check that there are examples for training and test left without the broken ones.

    Raises
    ------
    DataError
        There are none.
    """
    for file in ("train", "test"):
        if not len(np.load(pack / f"{file}_labels.npy", mmap_mode="r")):
            head = f"{folder.root}: none of the pictures for {file} can be used:"
            raise DataError("\n  ".join([head, *_list_broken(broken)]))


def _decode(
    pictures: Sequence[Picture], shape: tuple[int, ...], decoders: ThreadPoolExecutor, num_ahead: int
) -> Iterator[tuple[Picture, NDArray[np.uint8] | str]]:
    """Yield each picture, in order, with its array, or with what is wrong with it."""

    def attempt(picture: Picture) -> NDArray[np.uint8] | str:
        try:
            return decode_picture(picture.path, shape)
        except (DataError, ResourceError) as error:
            return str(error)

    under_way: collections.deque[tuple[Picture, Future[Any]]] = collections.deque()
    for picture in pictures:
        under_way.append((picture, decoders.submit(attempt, picture)))
        if len(under_way) > num_ahead:
            earliest, future = under_way.popleft()
            yield earliest, future.result()
    for earliest, future in under_way:
        yield earliest, future.result()


class _Progress:
    """A moving line on a terminal, a plain one every few seconds elsewhere."""

    def __init__(self, num_pictures: int, say: Callable[[str], None]) -> None:
        self._say, self._said_at = say, time.monotonic()
        self._bar: tqdm[Any] = tqdm(total=num_pictures, desc="decoding", unit=" pictures", leave=False, disable=None)
        self._num_done, self._num_pictures = 0, num_pictures

    def step(self) -> None:
        """Tell that one more is done."""
        self._num_done += 1
        self._bar.update()
        if self._bar.disable and time.monotonic() > self._said_at + PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            self._say(f"{self._num_done:,} of {self._num_pictures:,} pictures")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *ending: object) -> None:
        self._bar.close()
