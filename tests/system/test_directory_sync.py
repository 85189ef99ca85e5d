from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from partrain.system.durable_files import CANNOT_SYNC, make_folders, sync_folder, write_durably


def let_directories_fail(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("number", sorted(CANNOT_SYNC))
def test_file_system_that_cannot_sync_directories_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert sync_folder(tmp_path)
    let_directories_fail(monkeypatch, number)
    assert not sync_folder(tmp_path)
    make_folders(tmp_path / "a/b")
    write_durably(tmp_path / "a/b/file", b"content")
    assert (tmp_path / "a/b/file").read_bytes() == b"content"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_disk_that_fails_to_sync_a_directory_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    let_directories_fail(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(tmp_path)
