from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from partrain.data import download
from partrain.data.catalog import CATALOG, DataUnavailable, load_named
from partrain.data.idx import FILE_NAMES
from partrain.errors import DataError
from partrain.system.cache_directories import data_directory
from tests.data.small_mnist import CONTENTS, contents_of, offer, write_files
from tests.noise_data import idx_bytes


def unavailable() -> str:
    with pytest.raises(DataUnavailable) as caught:
        load_named("mnist", say=lambda line: None)
    return str(caught.value)


def broken() -> str:
    """Return the message of a DataError that must not lead to other data."""
    with pytest.raises(DataError) as caught:
        load_named("mnist", say=pytest.fail)
    assert not isinstance(caught.value, DataUnavailable)
    return str(caught.value)


# --- files on this machine


@pytest.mark.parametrize("packed", [False, True])
def test_files_in_the_data_folder_are_loaded_and_nothing_is_written_or_said(home: Path, packed: bool) -> None:
    write_files(home, packed=packed)
    before = sorted(home.iterdir())
    dataset = load_named("mnist", say=pytest.fail)
    assert dataset.name == "mnist"
    assert dataset.source == str(home)
    assert dataset.train.images.shape == (5, 1, 28, 28)
    assert dataset.train.labels.tolist() == [3, 1, 4, 1, 5]
    assert dataset.test.labels.tolist() == [9, 0]
    assert dataset.class_names == tuple("0123456789")
    assert sorted(home.iterdir()) == before


def test_a_file_that_was_compressed_again_passes(home: Path) -> None:
    write_files(home)
    digest = load_named("mnist", say=pytest.fail).digest
    for name in FILE_NAMES:
        (home / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name], compresslevel=1, mtime=1))
    assert load_named("mnist", say=pytest.fail).digest == digest


def test_a_system_folder_is_used_for_what_the_data_folder_lacks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    offer(monkeypatch, CONTENTS, system_directories=(system,))
    write_files(system)
    assert load_named("mnist", say=pytest.fail).source == str(system)
    write_files(home, FILE_NAMES[:2])
    assert load_named("mnist", say=pytest.fail).source == f"{home}, {system}"
    write_files(home)
    (system / f"{FILE_NAMES[0]}.gz").write_bytes(b"of no interest")
    assert load_named("mnist", say=pytest.fail).source == str(home)


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
        dataset = load_named(name, say=pytest.fail)
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
