"""Shared arrays on systems that lack `memfd_create`, /dev/shm or `posix_fallocate`."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from partrain.errors import ResourceError
from partrain.system import shared_arrays
from partrain.system.shared_arrays import ArraySpec, SharedArrays

SPECS = {"a": ArraySpec((2**20 + 5,), "uint8")}


def failing(number: int) -> Callable[..., NoReturn]:
    def fail(*args: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def is_usable_and_without_a_name(directory: Path) -> bool:
    arrays = SharedArrays(SPECS, {})
    try:
        assert not arrays["a"].any()
        arrays["a"][:] = 7
        return arrays["a"].all() and not list(directory.iterdir())
    finally:
        arrays.close()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
@pytest.mark.parametrize("shared_memory", ["/dev/shm", "/is/not/there"])
def test_system_without_memfd_create_uses_a_file_without_a_name(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, number: int, shared_memory: str
) -> None:
    monkeypatch.setattr(os, "memfd_create", failing(number), raising=False)
    monkeypatch.setattr(shared_arrays, "SHARED_MEMORY", shared_memory)
    assert is_usable_and_without_a_name(temporary)


def test_system_without_unnamed_files_uses_one_that_is_unlinked_at_once(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(shared_arrays, "SHARED_MEMORY", "/is/not/there")
    assert is_usable_and_without_a_name(temporary)


def test_shared_memory_that_is_too_small_is_replaced_by_the_directory_for_temporary_files(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = os.posix_fallocate

    def fail_in_memory(descriptor: int, offset: int, length: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/dev/shm"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "memfd_create", failing(errno.ENOSYS), raising=False)
    monkeypatch.setattr(os, "posix_fallocate", fail_in_memory)
    num_open = len(os.listdir("/proc/self/fd"))
    assert is_usable_and_without_a_name(temporary)
    assert len(os.listdir("/proc/self/fd")) == num_open


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_file_system_that_cannot_allocate_ahead_is_written_with_zeros(
    monkeypatch: pytest.MonkeyPatch, number: int, temporary: Path
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(number), raising=False)
    written: list[int] = []
    pwrite = os.pwrite

    def record(descriptor: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", record)
    assert is_usable_and_without_a_name(temporary)
    assert sum(written) == shared_arrays.total_bytes(SPECS)


def test_no_memory_anywhere_is_a_message(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", failing(errno.EMFILE), raising=False)
    monkeypatch.setattr(os, "open", failing(errno.EMFILE))
    with pytest.raises(ResourceError, match="shared memory are needed and cannot be had"):
        SharedArrays(SPECS, {})
