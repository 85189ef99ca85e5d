"""A compressed IDX file is decompressed once; later its content comes from the cache, if that can be trusted."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partrain.data.idx import read_idx
from tests.noise_data import idx_bytes

# More than 1 MiB: smaller files are not cached.
CONTENT = idx_bytes(np.random.default_rng(0).integers(0, 256, (1100, 32, 32), np.uint8))
COMPRESSED = gzip.compress(CONTENT, 1)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compressed file; the cache is `cache/partrain` beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "images.gz"
    path.write_bytes(COMPRESSED)
    return path


def read(path: Path) -> bytes:
    file = read_idx(path, num_dimensions=3)
    content = idx_bytes(file.array)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.array.flags.writeable
    return content


def entries(path: Path) -> list[Path]:
    return sorted((path.parent / "cache/partrain/decoded").iterdir())


def test_file_is_decompressed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(path) == CONTENT

    def refuse(*arguments: object, **named: object) -> None:
        pytest.fail("it was decompressed again")

    monkeypatch.setattr(gzip, "GzipFile", refuse)
    path.rename(path.with_name("moved.gz"))
    assert read(path.with_name("moved.gz")) == CONTENT


def test_changed_file_is_not_taken_for_the_old_one(path: Path) -> None:
    read(path)
    changed = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    path.write_bytes(gzip.compress(changed, 1))
    assert read(path) == changed
    assert len(entries(path)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
        lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        lambda content: bytes(32) + content[32:],
        lambda content: content + b"more",
    ],
    ids=["cut off", "empty", "header", "content", "digest", "longer"],
)
def test_damaged_entry_is_replaced(path: Path, damage: Callable[[bytes], bytes]) -> None:
    read(path)
    (entry,) = entries(path)
    good = entry.read_bytes()
    entry.write_bytes(damage(good))
    assert read(path) == CONTENT
    assert entry.read_bytes() == good


def test_entry_that_another_user_could_have_written_is_not_used(path: Path) -> None:
    read(path)
    (entry,) = entries(path)
    forged = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    entry.write_bytes(hashlib.sha256(forged).digest() + forged)
    assert read(path) == forged  # from a cache that only this user can write
    entry.chmod(0o666)
    assert read(path) == CONTENT
    entry.write_bytes(hashlib.sha256(forged).digest() + forged)
    entry.chmod(0o644)
    entry.parent.chmod(0o777)
    assert read(path) == CONTENT


def test_cache_that_cannot_be_written_is_no_obstacle(path: Path) -> None:
    (path.parent / "cache").write_text("a file where the cache's directory would be")
    assert read(path) == CONTENT
    assert read(path) == CONTENT


def test_what_a_killed_process_has_left_half_written_is_deleted(path: Path) -> None:
    left = path.parent / "cache/partrain/decoded/.entry.99999999.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT)
    assert read(path) == CONTENT
    assert [entry.name for entry in entries(path)] == [hashlib.sha256(COMPRESSED).hexdigest()]
