"""Fetches and verifies the files of a named data set, for `partrain data fetch` and `partrain data verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from partrain.data import cifar10
from partrain.data.catalog import fetch_files, find_files, read_checked
from partrain.data.idx import FILE_NAMES, IdxFile
from partrain.data.loading import NAMED
from partrain.errors import ConfigError, DataError, did_you_mean
from partrain.system.terminal_text import table


@dataclass(frozen=True)
class ArchiveFile:
    """A verified archive."""

    path: Path
    num_bytes: int
    md5: str


@dataclass(frozen=True, eq=False)
class FileReport:
    """The result of verifying a file.

    Attributes
    ----------
    name : the name of the file; the path of a wrong file.
    content : path, size and digest of a right file; None if the file is wrong or missing.
    problem : the defect of the file; None if the file is right or missing.
    """

    name: str
    content: IdxFile | ArchiveFile | None
    problem: str | None = None

    def row(self) -> tuple[str, str, str, str]:
        """Return status, size, digest (see `describe`), and path; the name of a missing file."""
        if self.content is None:
            return "missing" if self.problem is None else "wrong", "", "", self.name
        digest = self.content.sha256 if isinstance(self.content, IdxFile) else self.content.md5
        return "ok", f"{self.content.num_bytes:,}", digest, str(self.content.path)


def fetch(name: str, say: Callable[[str], None]) -> list[FileReport]:
    """Fetch the files of a data set that are not on this machine, and verify all of them.

    Raises
    ------
    ConfigError
        No data set has this name.
    DataError
        A file cannot be fetched, or is not the right one.

    Side effects
    ------------
    Writes into the directory of the data set.
    """
    _require_name(name)
    if name == cifar10.NAME:
        cifar10.fetch_archive(say=say)
        return verify(name)
    files = fetch_files(name, say=say)
    return [FileReport(file_name, files[file_name].content) for file_name in FILE_NAMES]


def verify(name: str) -> list[FileReport]:
    """Compare the files of a data set that are on this machine with their digests; fetch nothing.

    Raises
    ------
    ConfigError
        No data set has this name.
    """
    _require_name(name)
    if name == cifar10.NAME:
        return [_verify_archive()]
    paths, _ = find_files(name)
    reports = []
    for file_name in FILE_NAMES:
        try:
            content = read_checked(name, file_name, paths[file_name]) if file_name in paths else None
            reports.append(FileReport(file_name, content))
        except DataError as error:
            reports.append(FileReport(str(paths[file_name]), None, str(error)))
    return reports


def _verify_archive() -> FileReport:
    path = cifar10.archive_path()
    if not path.exists():
        return FileReport(cifar10.FILE_NAME, None)
    try:
        cifar10.check_archive(path)
    except DataError as error:
        return FileReport(str(path), None, str(error))
    return FileReport(cifar10.FILE_NAME, ArchiveFile(path, cifar10.NUM_BYTES, cifar10.MD5))


def require_valid(name: str, reports: Sequence[FileReport]) -> None:
    """Check that no file is missing or wrong.

    Raises
    ------
    DataError
        A file is; the message says what is wrong with each, and where missing files belong.
    """
    problems = [report.problem for report in reports if report.problem is not None]
    missing = [report.name for report in reports if report.content is None and report.problem is None]
    if missing:
        places = [f"{cifar10.archive_path()}: no such file"] if name == cifar10.NAME else find_files(name)[1]
        problems.append(f"{name}: {'; '.join(places)}. Fetch the missing files: partrain data fetch {name}")
    if problems:
        raise DataError("\n  ".join(problems))


def describe(reports: Sequence[FileReport]) -> str:
    """Return a table of the files: status, bytes and SHA-256 of the uncompressed content, and path.

    For an archive without a published SHA-256: its own size, and its MD5.
    """
    is_archive = any(report.name.endswith(cifar10.FILE_NAME) for report in reports)
    digest = "md5 (no sha256 is published)" if is_archive else "sha256 of the content"
    head = ("status", "bytes", digest, "file")
    return "\n".join(table(head, [report.row() for report in reports], num_words=(0, 2, 3)))


def _require_name(name: str) -> None:
    """Check that `name` is a data set with files.

    Raises
    ------
    ConfigError
        It is not; the message names those that are.
    """
    if name in NAMED:
        return
    known = ", ".join(NAMED)
    if name == "synthetic-digits":
        raise ConfigError(f"{name}: has no files, partrain generates it; the data sets with files are {known}")
    hint = did_you_mean(name, NAMED) or f"; the data sets are {known}"
    raise ConfigError(f"{name!r}: there is no such data set{hint}")
