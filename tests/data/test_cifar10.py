from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partrain.data import cifar10
from partrain.data.catalog import DataUnavailable
from partrain.data.cifar10 import FILE_NAME, load_cifar10
from partrain.errors import DataError
from tests.data.mirror_server import Answer, Mirror, answer_404, answer_endlessly, answer_with
from tests.program import Result

NUM = 20
RNG = np.random.Generator(np.random.Philox(key=0))
IMAGES = RNG.integers(0, 256, (6 * NUM, 3, 32, 32), np.uint8)
LABELS = np.arange(6 * NUM) % 10


def members(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> dict[str, bytes]:
    """Return the files of an archive, in the form of the publisher's: of few examples."""
    records = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(len(images), -1)], axis=1)
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    files = {f"cifar-10-batches-bin/{name}": records[k * NUM : (k + 1) * NUM].tobytes() for k, name in enumerate(names)}
    return {"cifar-10-batches-bin/readme.html": b"text", "../evil": b"x"} | files


def archive_of(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


ARCHIVE = archive_of(members())


def expect(monkeypatch: pytest.MonkeyPatch, archive: bytes, *mirrors: str) -> None:
    """Have this archive be the right one."""
    monkeypatch.setattr(cifar10, "EXAMPLES_PER_FILE", NUM)
    monkeypatch.setattr(cifar10, "NUM_BYTES", len(archive))
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    monkeypatch.setattr(cifar10, "MIRRORS", mirrors)


@pytest.fixture
def folder(home: Path) -> Path:
    """Where the archive belongs."""
    return home.parent / "cifar-10"


def put(folder: Path, archive: bytes = ARCHIVE) -> Path:
    folder.mkdir(parents=True)
    (folder / FILE_NAME).write_bytes(archive)
    return folder / FILE_NAME


def test_archive_on_this_machine_is_read_and_nothing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, ARCHIVE)
    put(folder)
    dataset = load_cifar10(say=pytest.fail)
    assert (dataset.name, dataset.source) == ("cifar-10", str(folder))
    np.testing.assert_array_equal(dataset.train.images, IMAGES[: 5 * NUM])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[: 5 * NUM])
    np.testing.assert_array_equal(dataset.test.images, IMAGES[5 * NUM :])
    assert dataset.class_names[3] == "cat"


def test_right_file_is_fetched_once_and_kept(mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, ARCHIVE, mirror.address)
    mirror.answers[f"/{FILE_NAME}"] = answer_with(ARCHIVE)
    said: list[str] = []
    assert load_cifar10(say=said.append).source == mirror.address
    assert load_cifar10(say=pytest.fail).source == str(folder)
    assert said == [f"fetching {mirror.address}{FILE_NAME}"]
    assert mirror.asked == [f"/{FILE_NAME}"]


OTHER = archive_of(members(IMAGES[::-1]))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(answer_404, "HTTP status 404", id="missing"),
        pytest.param(answer_with(OTHER[: len(ARCHIVE)]), "not the right file", id="wrong"),
        pytest.param(answer_with(ARCHIVE[:-9], len(ARCHIVE)), "not the right file", id="cut"),
        pytest.param(answer_endlessly(0, 65_536), "sent more than", id="endless"),
    ],
)
def test_file_that_is_not_right_leaves_nothing_behind(
    mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
) -> None:
    expect(monkeypatch, ARCHIVE, f"{mirror.address}bad/")
    mirror.answers[f"/bad/{FILE_NAME}"] = answer
    with pytest.raises(DataUnavailable, match=reason):
        load_cifar10(say=lambda line: None)
    assert not folder.exists() or not list(folder.iterdir())
    monkeypatch.setattr(cifar10, "MIRRORS", (f"{mirror.address}bad/", mirror.address))
    mirror.answers[f"/{FILE_NAME}"] = answer_with(ARCHIVE)
    assert load_cifar10(say=lambda line: None).source == mirror.address


def test_what_is_unpacked_is_verified_even_if_the_file_changes_after_a_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, ARCHIVE)
    put(folder, OTHER)
    monkeypatch.setattr(cifar10, "check_archive", lambda path: None)
    with pytest.raises(DataError, match="is damaged, or is not"):
        load_cifar10(say=pytest.fail)


def test_wrong_file_on_this_machine_is_an_error_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, ARCHIVE)
    path = put(folder, OTHER)
    with pytest.raises(DataError, match=f"with the MD5 {hashlib.md5(OTHER).hexdigest()}, expected"):
        load_cifar10(say=pytest.fail)
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (
            archive_of({"cifar-10-batches-bin/test_batch.bin": b"x"}),
            "contains no cifar-10-batches-bin/data_batch_1",
        ),
        (archive_of(members(labels=LABELS + 5)), "contains the label 14"),
        (b"no archive", "cannot be unpacked"),
        (ARCHIVE[:3000], "cannot be unpacked"),
    ],
)
def test_archive_that_holds_something_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes, message: str
) -> None:
    expect(monkeypatch, archive)
    put(folder, archive)
    with pytest.raises(DataError, match=message):
        load_cifar10(say=pytest.fail)


def test_fetch_and_verify_show_the_archive(
    call_partrain: Callable[..., Result], mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, ARCHIVE, mirror.address)
    result = call_partrain("data", "verify", "cifar-10")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[1].split() == ["missing", FILE_NAME]
    assert f"{folder / FILE_NAME}: no such file" in result.stderr
    mirror.answers[f"/{FILE_NAME}"] = answer_with(ARCHIVE)
    for command in ("fetch", "verify"):
        result = call_partrain("data", command, "cifar-10", "-q")
        assert (result.exit_code, result.stderr) == (0, "" if command == "verify" else result.stderr)
        header, row = result.stdout.splitlines()
        assert header.split()[:3] == ["status", "bytes", "md5"]
        assert row.split() == ["ok", f"{len(ARCHIVE):,}", cifar10.MD5, str(folder / FILE_NAME)]
    (folder / FILE_NAME).write_bytes(OTHER)
    result = call_partrain("data", "verify", "cifar-10")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[1].split() == ["wrong", str(folder / FILE_NAME)]
