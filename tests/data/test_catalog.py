from __future__ import annotations

import contextlib
import dataclasses
import gc
import gzip
import hashlib
import http.server
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from partrain.data import catalog, download
from partrain.data.catalog import CATALOG, DataUnavailable, NamedDataset, load_named
from partrain.data.idx import FILE_NAMES
from partrain.errors import DataError
from partrain.system.cache_directories import data_directory
from tests.data.test_idx import idx_bytes

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def contents_of(labels: list[int]) -> dict[str, bytes]:
    images = np.random.default_rng(0).integers(0, 256, (len(labels) + 2, 28, 28))
    arrays = (images[:-2], np.array(labels), images[-2:], np.array([9, 0]))
    return {name: idx_bytes(array) for name, array in zip(FILE_NAMES, arrays, strict=True)}


CONTENTS = contents_of([3, 1, 4, 1, 5])


def offer(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes], *mirrors: str, **options: object) -> None:
    """Put a small "mnist" with these contents in the place of the real one."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    entry = NamedDataset(digests, tuple("0123456789"), mirrors, **options)  # type: ignore[arg-type]
    monkeypatch.setitem(CATALOG, "mnist", entry)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the small "mnist" is looked for; it does not exist."""
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    offer(monkeypatch, CONTENTS)
    return tmp_path / "data" / "mnist"


def write_files(folder: Path, names: tuple[str, ...] = FILE_NAMES, *, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name]))
        else:
            (folder / name).write_bytes(CONTENTS[name])


def say_nothing(line: str) -> None:
    raise AssertionError(f"said: {line}")


def unavailable() -> str:
    with pytest.raises(DataUnavailable) as caught:
        load_named("mnist", say=lambda line: None)
    return str(caught.value)


def broken() -> str:
    """Return the message of a DataError that must not lead to other data."""
    with pytest.raises(DataError) as caught:
        load_named("mnist", say=say_nothing)
    assert not isinstance(caught.value, DataUnavailable)
    return str(caught.value)


# --- files on this machine


@pytest.mark.parametrize("packed", [False, True])
def test_files_in_the_data_folder_are_loaded_and_nothing_is_written_or_said(home: Path, packed: bool) -> None:
    write_files(home, packed=packed)
    before = sorted(home.iterdir())
    dataset = load_named("mnist", say=say_nothing)
    assert dataset.name == "mnist"
    assert dataset.source == str(home)
    assert dataset.train.images.shape == (5, 1, 28, 28)
    assert dataset.train.labels.tolist() == [3, 1, 4, 1, 5]
    assert dataset.test.labels.tolist() == [9, 0]
    assert dataset.class_names == tuple("0123456789")
    assert sorted(home.iterdir()) == before


def test_a_file_that_was_compressed_again_passes(home: Path) -> None:
    write_files(home)
    digest = load_named("mnist", say=say_nothing).digest
    for name in FILE_NAMES:
        (home / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name], compresslevel=1, mtime=1))
    assert load_named("mnist", say=say_nothing).digest == digest


def test_a_system_folder_is_used_for_what_the_data_folder_lacks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    offer(monkeypatch, CONTENTS, system_directories=(system,))
    write_files(system)
    assert load_named("mnist", say=say_nothing).source == str(system)
    write_files(home, FILE_NAMES[:2])
    assert load_named("mnist", say=say_nothing).source == f"{home}, {system}"
    write_files(home)
    (system / f"{FILE_NAMES[0]}.gz").write_bytes(b"of no interest")
    assert load_named("mnist", say=say_nothing).source == str(home)


def test_a_wrong_digest_is_an_error_with_both_digests_and_the_file_is_kept(home: Path) -> None:
    write_files(home)
    path = home / f"{FILE_NAMES[1]}.gz"
    other = idx_bytes(np.zeros(5))
    path.write_bytes(gzip.compress(other))
    message = broken()
    assert message.startswith(str(path))
    assert hashlib.sha256(other).hexdigest() in message
    assert hashlib.sha256(CONTENTS[FILE_NAMES[1]]).hexdigest() in message
    assert "Delete the file" in message
    assert gzip.decompress(path.read_bytes()) == other


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(CONTENTS[FILE_NAMES[0]])[:-20]])
def test_a_damaged_file_is_an_error_even_where_others_are_missing(home: Path, content: bytes) -> None:
    write_files(home, FILE_NAMES[:1])
    path = home / f"{FILE_NAMES[0]}.gz"
    path.write_bytes(content)
    assert broken().startswith(str(path))
    assert path.read_bytes() == content


def test_a_folder_or_a_dead_link_in_place_of_a_file_is_an_error(home: Path) -> None:
    write_files(home)
    path = home / f"{FILE_NAMES[0]}.gz"
    path.unlink()
    path.symlink_to(home / "nothing")
    assert "No such file" in broken()
    path.unlink()
    path.mkdir()
    assert "is a directory" in broken()


def test_a_label_without_a_class_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = contents_of([0, 1, 10])
    offer(monkeypatch, contents)
    home.mkdir(parents=True)
    for name, content in contents.items():
        (home / name).write_bytes(content)
    assert "label 10, but mnist has only the labels 0 to 9" in broken()


def test_different_counts_are_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {**CONTENTS, FILE_NAMES[1]: idx_bytes(np.zeros(4))}
    offer(monkeypatch, contents)
    home.mkdir(parents=True)
    for name, content in contents.items():
        (home / name).write_bytes(content)
    assert re.search("5 images.*4 labels", broken())


# --- nothing on this machine


def test_where_nothing_can_be_had_every_place_is_named_with_its_reason(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    write_files(system, FILE_NAMES[1:])
    # Nothing listens on port 1, and RFC 2606 keeps .invalid from being a name.
    mirrors = ("http://127.0.0.1:1/", "https://mirror.invalid/mnist/")
    offer(monkeypatch, CONTENTS, *mirrors, system_directories=(system,))
    start = time.monotonic()
    message = unavailable()
    assert time.monotonic() - start < 20
    assert f"{home}: No such file or directory" in message
    assert f"{system}: contains no {FILE_NAMES[0]}" in message
    assert re.search(f"http://127.0.0.1:1/{FILE_NAMES[0]}.gz: .*refused", message)
    assert re.search(f"https://mirror.invalid/mnist/{FILE_NAMES[0]}.gz: .+", message)
    assert f"into {home}" in message
    assert "PARTRAIN_DATA_DIR" in message
    assert not home.exists()


def test_a_name_look_up_that_hangs_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def hang(*_: object, **__: object) -> None:
        end.wait(30)
        raise OSError

    offer(monkeypatch, CONTENTS, "http://127.0.0.1:1/")
    monkeypatch.setattr(download, "OPEN_TIMEOUT_S", 0.3)
    monkeypatch.setattr("urllib.request.urlopen", hang)
    start = time.monotonic()
    try:
        assert "no answer within 0.3 s" in unavailable()
        assert time.monotonic() - start < 10
    finally:
        end.set()


# --- mirrors


class Mirror(http.server.ThreadingHTTPServer):
    """A server on this machine that answers a request for a path as `answers` says, else with 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.end = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        with contextlib.suppress(ConnectionError):
            self.server.answers.get(self.path, answer_404)(self)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(home: Path) -> Iterator[Mirror]:
    with Mirror() as server:
        server.daemon_threads = False  # so that closing waits for the answers' threads
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.end.set()
        server.shutdown()
        thread.join()


def answer_404(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def answer_with(content: bytes, announced: int | None = None) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(announced or len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def answer_endlessly(pause_s: float, size: int) -> Answer:
    def answer(request: Handler) -> None:
        request.send_response(200)
        request.end_headers()
        while not request.server.end.wait(pause_s):
            request.wfile.write(bytes(size))

    return answer  # type: ignore[return-value]


def answer_never(request: Handler) -> None:
    request.server.end.wait(30)


def answer_and_hang(request: Handler) -> None:
    answer_with(PACKED[FILE_NAMES[0]][:1000], 10_000)(request)
    request.server.end.wait(30)


def redirect_to(address: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", address)
        request.end_headers()

    return answer


PACKED = {name: gzip.compress(content) for name, content in CONTENTS.items()}


def serve_all(mirror: Mirror, folder: str = "/") -> None:
    for name, content in PACKED.items():
        mirror.answers[f"{folder}{name}.gz"] = answer_with(content)


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
    again = load_named("mnist", say=say_nothing)
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


# --- the real ones


def test_the_catalogue_is_whole() -> None:
    for entry in CATALOG.values():
        assert tuple(entry.sha256) == FILE_NAMES
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in entry.sha256.values())
        assert len(entry.class_names) == 10
        assert all(re.fullmatch("https?://.*/", mirror) for mirror in entry.mirrors)
        schemes = [mirror.partition(":")[0] for mirror in entry.mirrors]
        assert schemes == sorted(schemes, reverse=True)  # https first


@pytest.mark.parametrize(
    ("name", "counts", "first_labels"),
    [("mnist", (5923, 6742), [5, 0, 4, 1, 9]), ("fashion-mnist", (6000, 6000), [9, 0, 0, 3, 0])],
)
def test_the_real_files_pass_where_they_are_at_hand(
    monkeypatch: pytest.MonkeyPatch, name: str, counts: tuple[int, int], first_labels: list[int]
) -> None:
    monkeypatch.setitem(CATALOG, name, dataclasses.replace(CATALOG[name], mirrors=()))
    try:
        dataset = load_named(name, say=say_nothing)
    except DataUnavailable:
        pytest.skip(f"{name} is not on this machine; PARTRAIN_DATA_DIR may name a folder that holds it")
    assert dataset.train.images.shape == (60_000, 1, 28, 28)
    assert dataset.test.images.shape == (10_000, 1, 28, 28)
    assert dataset.train.labels[:5].tolist() == first_labels
    assert tuple(np.bincount(dataset.train.labels)[:2]) == counts
    assert len(dataset.class_names) == 10


def test_a_changed_byte_of_the_real_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = data_directory() / "mnist"
    if not (real / f"{FILE_NAMES[3]}.gz").is_file():
        pytest.skip("mnist is not in the data folder; PARTRAIN_DATA_DIR may name one that holds it")
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path))
    shutil.copytree(real, tmp_path / "mnist", copy_function=os.symlink)
    content = bytearray(gzip.decompress((real / f"{FILE_NAMES[3]}.gz").read_bytes()))
    content[5000] ^= 1
    (tmp_path / "mnist" / f"{FILE_NAMES[3]}.gz").unlink()
    (tmp_path / "mnist" / FILE_NAMES[3]).write_bytes(content)
    assert str(tmp_path / "mnist" / FILE_NAMES[3]) in broken()
