"""The files of a named data set, fetched and verified ahead of the training that needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partrain.data.catalog import CATALOG, fetch_files, find_files, read_checked
from partrain.data.idx import FILE_NAMES, IdxFile
from partrain.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, eq=False)
class FileReport:
    """What was found of a file: its content if it is right, else what is wrong with it."""

    name: str
    content: IdxFile | None
    problem: str | None = None

    def row(self) -> tuple[str, str, str, str]:
        """Return status, size of the uncompressed content, its SHA-256, and path (or name, where it is missing)."""
        if self.content is None:
            return "missing" if self.problem is None else "wrong", "", "", self.name
        return "ok", f"{self.content.num_bytes:,}", self.content.sha256, str(self.content.path)


def fetch(name: str, say: Callable[[str], None]) -> list[FileReport]:
    """Fetch those files of a data set that are not on this machine, and verify all.

    Raises
    ------
    ConfigError
        No data set has this name.
    DataError
        A file cannot be had, or is not the right one.

    Side effects
    ------------
    Writes into the folder of the data set.
    """
    _require_name(name)
    files = fetch_files(name, say=say)
    return [FileReport(file_name, files[file_name].content) for file_name in FILE_NAMES]


def verify(name: str) -> list[FileReport]:
    """Read the files of a data set that are on this machine, and compare them with their digests; fetch nothing.

    Raises
    ------
    ConfigError
        No data set has this name.
    """
    _require_name(name)
    paths, _ = find_files(name)
    reports = []
    for file_name in FILE_NAMES:
        try:
            content = read_checked(name, file_name, paths[file_name]) if file_name in paths else None
            reports.append(FileReport(file_name, content))
        except DataError as error:
            reports.append(FileReport(str(paths[file_name]), None, str(error)))
    return reports


def require_all_right(name: str, reports: Sequence[FileReport]) -> None:
    """Check that there is no file that is missing or wrong.

    Raises
    ------
    DataError
        There is; says of each what is wrong, and where the missing ones belong.
    """
    problems = [report.problem for report in reports if report.problem is not None]
    missing = [report.name for report in reports if report.content is None and report.problem is None]
    if missing:
        _, places = find_files(name)
        problems.append(f"{name}: {'; '.join(places)}. Fetch what is missing: partrain data fetch {name}")
    if problems:
        raise DataError("\n  ".join(problems))


def describe(reports: Sequence[FileReport]) -> str:
    """Return a table of files: status, bytes and SHA-256 of the uncompressed content, path."""
    rows = [("status", "bytes", "sha256 of the content", "file"), *(report.row() for report in reports)]
    a, b, c = (max(len(row[column]) for row in rows) for column in range(3))
    return "\n".join(f"{w:<{a}}  {x:>{b}}  {y:<{c}}  {z}" for w, x, y, z in rows)


def _require_name(name: str) -> None:
    """Check that `name` is a data set whose files can be fetched.

    Raises
    ------
    ConfigError
        It is not; names those that are.
    """
    if name in CATALOG:
        return
    known = ", ".join(CATALOG)
    if name == "synthetic-digits":
        raise ConfigError(f"{name}: has no files, the program draws it; the data sets with files are {known}")
    hint = did_you_mean(name, CATALOG) or f"; the data sets are {known}"
    raise ConfigError(f"{name!r}: there is no such data set{hint}")
