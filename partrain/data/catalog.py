"""The catalog of named data sets in IDX files: where their files are, and the digests that verify them.

A file is searched in the user's data directory, then in the directories of the operating system's packages, and then
fetched from public mirrors into the data directory. Digests are of the uncompressed content, so a file that was
compressed again is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from partrain.data.dataset import Dataset
from partrain.data.download import fetch_from_mirrors
from partrain.data.idx import FILE_NAMES, IdxFile, find_idx_files, idx_dataset, num_dimensions_of, read_idx
from partrain.errors import DataError
from partrain.system.cache_directories import data_directory

# The largest file of the catalog has 47 MB of content, and less when compressed.
MAX_FILE_BYTES = 64 * 1024**2


class DataUnavailable(DataError):
    """A named data set is neither on this machine nor available from a mirror.

    A file that exists but is wrong raises a plain DataError instead.
    """


@dataclass(frozen=True)
class NamedDataset:
    """A data set of four IDX files with MNIST's file names.

    Parameters
    ----------
    sha256 : file name -> SHA-256 in hex of the uncompressed file.
    class_names : the name of each label, from 0.
    mirrors : URLs of directories with the gzipped files, in the order in which they are tried.
    system_directories : directories in which packages of the operating system install the files.
    """

    sha256: Mapping[str, str]
    class_names: tuple[str, ...]
    mirrors: tuple[str, ...]
    system_directories: tuple[Path, ...] = ()


CATALOG = {
    "mnist": NamedDataset(
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        class_names=tuple("0123456789"),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": NamedDataset(
        # Digests of the content; the publisher gives MD5 digests of the gzipped files.
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        system_directories=(Path("/usr/share/datasets/fashion-mnist"),),
    ),
}


@dataclass(frozen=True, eq=False)
class FoundFile:
    """A verified file of a named data set.

    Parameters
    ----------
    content : the file's content and path.
    source : the directory in which it was found, or the URL of the mirror from which it was fetched.
    """

    content: IdxFile
    source: str


def load_named(name: str, *, say: Callable[[str], None]) -> Dataset:
    """Load a data set of the catalog; fetch the files that are not on this machine.

    Parameters
    ----------
    name : a key of `CATALOG`.
    say : called with a line for each file that is fetched.

    Raises
    ------
    DataUnavailable, DataError
        As for `fetch_files`; or the files do not belong together.

    Side effects
    ------------
    As for `fetch_files`.
    """
    files = fetch_files(name, say=say)
    return idx_dataset(
        name,
        ", ".join(dict.fromkeys(files[file_name].source for file_name in FILE_NAMES)),
        [files[file_name].content for file_name in FILE_NAMES],
        CATALOG[name].class_names,
    )


def fetch_files(name: str, *, say: Callable[[str], None]) -> dict[str, FoundFile]:
    """Read and verify the files of a named data set; fetch those that are not on this machine.

    Parameters
    ----------
    name : a key of `CATALOG`.
    say : called with a line for each file that is fetched.

    Raises
    ------
    DataUnavailable
        A file is not available; the message lists each place that was tried, and the reason.
    DataError
        A file on this machine is wrong. It is never replaced.

    Side effects
    ------------
    Fetched files stay in the directory `name` of `data_directory()`. Shows a progress bar if stderr is a terminal.
    """
    home = data_directory() / name
    paths, tried = find_files(name)
    # Existing files are verified first, so that a broken file is reported before a long download.
    files = {
        file_name: FoundFile(read_checked(name, file_name, path), str(path.parent.resolve()))
        for file_name, path in paths.items()
    }
    mirrors = list(CATALOG[name].mirrors)
    for file_name in FILE_NAMES:
        if file_name not in files:
            source = _fetch(name, file_name, home, mirrors, tried, say)
            files[file_name] = FoundFile(read_checked(name, file_name, home / f"{file_name}.gz"), source)
    return files


def find_files(name: str) -> tuple[dict[str, Path], list[str]]:
    """Return the paths of a named data set's files on this machine, and what each directory lacks."""
    paths: dict[str, Path] = {}
    lacking: list[str] = []
    for directory in (data_directory() / name, *CATALOG[name].system_directories):
        try:
            found = find_idx_files(directory)
        except OSError as error:
            lacking.append(f"{directory}: {error.strerror}")
            continue
        missing = [file_name for file_name in FILE_NAMES if file_name not in found]
        if missing:
            lacking.append(f"{directory}: contains no {', '.join(missing)}")
        paths = found | paths  # of two copies, the one in the earlier directory
    return paths, lacking


def read_checked(name: str, file_name: str, path: Path) -> IdxFile:
    """Read and verify a file of a named data set.

    Raises
    ------
    DataError
        The file is damaged, or another file; the message says its digest.
    """
    file = read_idx(path, num_dimensions=num_dimensions_of(file_name), max_bytes=MAX_FILE_BYTES)
    expected = CATALOG[name].sha256[file_name]
    if file.sha256 != expected:
        raise DataError(
            f"{path}: is damaged, or is not {file_name} of {name}. The SHA-256 of its uncompressed content "
            f"is {file.sha256}, expected {expected}. Delete the file to have it fetched again, or put "
            "the right file there. To train on your own files, use `data.name: idx` and `data.path`."
        )
    return file


def _fetch(
    name: str, file_name: str, directory: Path, mirrors: list[str], tried: list[str], say: Callable[[str], None]
) -> str:
    """Fetch a file from the first mirror that has it, and return that mirror."""
    path = directory / f"{file_name}.gz"
    mirror = fetch_from_mirrors(
        mirrors, tried, path, lambda fetched: read_checked(name, file_name, fetched), max_bytes=MAX_FILE_BYTES, say=say
    )
    if mirror is None:
        raise unavailable(name, directory, [f"{file_name}.gz" for file_name in FILE_NAMES], tried)
    return mirror


def unavailable(name: str, directory: Path, file_names: Sequence[str], tried: Sequence[str]) -> DataUnavailable:
    """Return the error for a data set whose files were not found in any place."""
    return DataUnavailable(
        f"The data set {name} is not available. Tried in this order:\n"
        + "".join(f"  - {place}\n" for place in tried)
        + f"Put {', '.join(file_names)} into {directory}, or set "
        f"PARTRAIN_DATA_DIR to a directory that contains them in a subdirectory {name}."
    )
