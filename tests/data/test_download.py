from __future__ import annotations

import gc
import os
import re
import time
from pathlib import Path

import pytest

from partrain.data import catalog, download
from partrain.data.catalog import DataUnavailable, load_named
from partrain.data.idx import FILE_NAMES
from tests.data.mirror_server import (
    Answer,
    Handler,
    Mirror,
    answer_404,
    answer_endlessly,
    answer_never,
    answer_with,
    redirect_to,
)
from tests.data.small_mnist import CONTENTS, PACKED, offer, serve_all, write_files


def unavailable() -> str:
    with pytest.raises(DataUnavailable) as caught:
        load_named("mnist", say=lambda line: None)
    return str(caught.value)


def answer_and_hang(request: Handler) -> None:
    answer_with(PACKED[FILE_NAMES[0]][:1000], 10_000)(request)
    request.server.end.wait(30)


def test_files_are_fetched_once_and_kept(
    mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    lines: list[str] = []
    fetched = load_named("mnist", say=lines.append)
    assert fetched.source == mirror.address
    assert lines == [f"fetching {mirror.address}{name}.gz" for name in FILE_NAMES]
    assert capfd.readouterr() == ("", "")  # no progress bar: stderr is no terminal
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {
        f"{name}.gz": content for name, content in PACKED.items()
    }
    again = load_named("mnist", say=pytest.fail)
    assert again.source == str(home)
    assert again.digest == fetched.digest


def test_a_fetched_file_may_be_read_by_whom_the_umask_lets(
    mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    before = os.umask(0o022)
    try:
        load_named("mnist", say=lambda line: None)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o644}


def test_only_missing_files_are_fetched(mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    write_files(home, FILE_NAMES[:3], packed=False)
    assert load_named("mnist", say=lambda line: None).source == f"{home}, {mirror.address}"
    assert mirror.asked == [f"/{FILE_NAMES[3]}.gz"]


def test_a_redirect_is_followed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    mirror.answers[f"/{FILE_NAMES[0]}.gz"] = redirect_to("/elsewhere")
    mirror.answers["/elsewhere"] = answer_with(PACKED[FILE_NAMES[0]])
    load_named("mnist", say=lambda line: None)
    assert mirror.asked[:2] == [f"/{FILE_NAMES[0]}.gz", "/elsewhere"]


FAILURES: dict[str, tuple[Answer, str]] = {
    "missing": (answer_404, "HTTP status 404"),
    "another file": (answer_with(PACKED[FILE_NAMES[2]]), "not the right file"),
    "a web page": (answer_with(b"<html>Please log in</html>"), "sent 26 bytes that are not the right"),
    "nothing": (answer_with(b""), "sent 0 bytes"),
    "cut off": (answer_with(PACKED[FILE_NAMES[0]][:-9], 10_000), "not the right file"),
    "endless": (answer_endlessly(0, 65_536), "sent more than 1,000,000 bytes"),
    "no HTTP": (lambda request: request.wfile.write(b"\0\33[2J\n") and None, r"BadStatusLine.*\\x00\\x1b"),
    "hangs up": (lambda request: None, "closed connection"),
    "redirects to a file": (redirect_to("file:///etc/passwd"), "HTTP status 302"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_mirror_that_fails_leaves_nothing_behind_and_the_next_is_asked(
    mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(catalog, "MAX_FILE_BYTES", 1_000_000)
    answer, reason = FAILURES[kind]
    bad, good = f"{mirror.address}bad/", f"{mirror.address}good/"
    mirror.answers[f"/bad/{FILE_NAMES[0]}.gz"] = answer

    offer(monkeypatch, CONTENTS, bad)
    assert re.search(f"{bad}{FILE_NAMES[0]}.gz: .*({reason})", unavailable())
    assert not home.exists() or list(home.iterdir()) == []

    offer(monkeypatch, CONTENTS, bad, good)
    serve_all(mirror, "/good/")
    mirror.asked.clear()
    assert load_named("mnist", say=lambda line: None).source == good
    # The one that failed is not asked for the other files.
    assert [path for path in mirror.asked if path.startswith("/bad/")] == [f"/bad/{FILE_NAMES[0]}.gz"]
    assert sorted(path.name for path in home.iterdir()) == sorted(f"{name}.gz" for name in FILE_NAMES)


# urllib itself leaves the answer open here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_redirect_to_nonsense_is_a_failed_mirror(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    mirror.answers[f"/{FILE_NAMES[0]}.gz"] = redirect_to("http://[/")
    assert "Invalid IPv6 URL" in unavailable()
    gc.collect()


@pytest.mark.parametrize(
    ("answer", "read_timeout_s", "reason"),
    [
        pytest.param(answer_never, 0.3, "timed out", id="no answer"),
        pytest.param(answer_and_hang, 0.3, "timed out", id="hangs in the middle"),
        pytest.param(answer_endlessly(0.01, 1), 1.0, "is slower than", id="slow"),
    ],
)
def test_a_mirror_that_keeps_us_waiting_is_given_up(
    mirror: Mirror,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    read_timeout_s: float,
    reason: str,
) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT_S", read_timeout_s)
    offer(monkeypatch, CONTENTS, mirror.address)
    mirror.answers[f"/{FILE_NAMES[0]}.gz"] = answer
    start = time.monotonic()
    assert reason in unavailable()
    assert time.monotonic() - start < 10 * read_timeout_s
    assert not home.exists() or list(home.iterdir()) == []


def test_a_data_folder_that_cannot_be_made_is_named(
    mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    home.parent.write_text("a file")
    assert f"Not a directory: '{home}'" in unavailable()


def test_what_was_fetched_before_a_failure_is_kept(mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    del mirror.answers[f"/{FILE_NAMES[1]}.gz"]
    assert "404" in unavailable()
    assert [path.name for path in home.iterdir()] == [f"{FILE_NAMES[0]}.gz"]


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupt_or_a_full_disk_leaves_nothing_behind(
    mirror: Mirror,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: type[BaseException] | BaseException,
) -> None:
    def fail(*_: object) -> None:
        raise error

    offer(monkeypatch, CONTENTS, mirror.address)
    serve_all(mirror)
    monkeypatch.setattr(where, fail)
    with pytest.raises((KeyboardInterrupt, DataUnavailable)):
        load_named("mnist", say=lambda line: None)
    assert not home.exists() or list(home.iterdir()) == []
