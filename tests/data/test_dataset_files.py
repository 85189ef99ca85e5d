"""`partrain data fetch` and `partrain data verify`, on a small data set in the place of mnist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.data.idx import FILE_NAMES
from tests.data.mirror_server import Mirror
from tests.data.small_mnist import CONTENTS, offer, serve_all, write_files
from tests.program import Result, call_without_numba

Call = Callable[..., Result]


def rows_of(result: Result) -> list[list[str]]:
    """Return the table without its header."""
    header, *rows = result.stdout.splitlines()
    assert header.split()[:3] == ["status", "bytes", "sha256"]
    return [row.split() for row in rows]


def right_rows(folder: Path) -> list[list[str]]:
    return [
        ["ok", f"{len(CONTENTS[name]):,}", hashlib.sha256(CONTENTS[name]).hexdigest(), str(folder / f"{name}.gz")]
        for name in FILE_NAMES
    ]


def test_missing_files_are_fetched_and_all_are_shown(
    call_partrain: Call, mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    write_files(home, FILE_NAMES[:1])
    result = call_partrain("data", "fetch", "mnist")
    assert result.exit_code == 0, result.stderr
    assert rows_of(result) == right_rows(home)
    assert mirror.asked == [f"/{name}.gz" for name in FILE_NAMES[1:]]
    assert result.stderr.splitlines() == [f"fetching {mirror.address}{name}.gz" for name in FILE_NAMES[1:]]


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_files_that_are_there_need_no_network_and_nothing_is_said(
    call_partrain: Call, home: Path, command: str
) -> None:
    write_files(home)
    result = call_partrain("data", command, "mnist")
    assert (result.exit_code, result.stderr) == (0, "")
    assert rows_of(result) == right_rows(home)


def test_verify_shows_every_file_that_is_missing_or_wrong_and_fetches_nothing(
    call_partrain: Call, mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    write_files(home, FILE_NAMES[:3])
    cut, other = (home / f"{name}.gz" for name in FILE_NAMES[:2])
    cut.write_bytes(cut.read_bytes()[:-20])
    other.write_bytes((home / f"{FILE_NAMES[2]}.gz").read_bytes())
    result = call_partrain("data", "verify", "mnist")
    assert result.exit_code == 2
    assert [(row[0], row[-1]) for row in rows_of(result)] == [
        ("wrong", str(cut)),
        ("wrong", str(other)),
        ("ok", str(home / f"{FILE_NAMES[2]}.gz")),
        ("missing", FILE_NAMES[3]),
    ]
    assert result.stderr.count("error: ") == 1
    for fragment in (f"{cut}: the gzip data is truncated", str(other), FILE_NAMES[3], "partrain data fetch mnist"):
        assert fragment in result.stderr
    assert mirror.asked == []


def test_fetch_that_fails_names_every_place(call_partrain: Call, mirror: Mirror, home: Path) -> None:
    result = call_partrain("data", "fetch", "mnist", "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{home}: No such file or directory" in result.stderr


@pytest.mark.parametrize("command", ["fetch", "verify"])
@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("mnits", "did you mean mnist?"),
        ("xyz", "the data sets are mnist, fashion-mnist"),
        ("../mnist", "no such data set"),
        ("synthetic-digits", "has no files, partrain generates it"),
    ],
)
def test_name_that_is_none_is_refused(call_partrain: Call, command: str, name: str, fragment: str) -> None:
    result = call_partrain("data", command, name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert fragment in result.stderr


def test_data_alone_says_what_it_can(call_partrain: Call) -> None:
    for arguments in (["data"], ["data", "eat"]):
        result = call_partrain(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
    assert "fetch" in call_partrain("data", "--help").stdout


def test_verify_imports_no_numba(home: Path) -> None:
    write_files(home)
    # The small data set is this process's alone: to another, these are no files of MNIST.
    assert call_without_numba("data", "verify", "mnist") == 2
