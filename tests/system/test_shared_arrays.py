from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from partrain.errors import ResourceError
from partrain.system.shared_arrays import ALIGNMENT, ArraySpec, MappedFile, SharedArrays, total_bytes
from tests.program import ROOT

SPECS = {
    "bytes": ArraySpec((3, 5), "uint8"),
    "number": ArraySpec((), "float64"),
    "nothing": ArraySpec((4, 0), "float32"),
    "large": ArraySpec((3, 1000), "float32"),
    "labels": ArraySpec((7,), "<i8"),
}


@pytest.fixture
def arrays() -> Iterator[SharedArrays]:
    shared = SharedArrays(SPECS, {})
    yield shared
    shared.close()


def test_arrays_have_the_planned_shapes_and_types(arrays: SharedArrays) -> None:
    assert list(arrays) == list(SPECS)
    assert len(arrays) == len(SPECS)
    for name, spec in SPECS.items():
        assert (arrays[name].shape, arrays[name].dtype) == (spec.shape, np.dtype(spec.dtype))
        assert arrays[name].flags.writeable
        assert arrays[name].flags.c_contiguous


def test_arrays_are_zero_at_first(arrays: SharedArrays) -> None:
    assert not any(array.any() for array in arrays.values())


def test_each_array_begins_a_page_of_its_own(arrays: SharedArrays) -> None:
    pages: list[int] = []
    for array in arrays.values():
        if array.size:
            first = array.ctypes.data
            assert first % ALIGNMENT == 0
            pages += range(first // ALIGNMENT, (first + array.nbytes - 1) // ALIGNMENT + 1)
    assert len(pages) == len(set(pages))


def test_what_is_written_into_one_array_is_seen_in_no_other(arrays: SharedArrays) -> None:
    for k, array in enumerate(arrays.values()):
        array[...] = k + 1
    for k, array in enumerate(arrays.values()):
        assert (array == k + 1).all()


def test_size_is_counted_in_whole_pages() -> None:
    assert ArraySpec((3, 1000), "float32").num_bytes == 12_000
    assert ArraySpec((), "float64").num_bytes == 8
    assert total_bytes({"a": ArraySpec((1,), "uint8"), "b": ArraySpec((ALIGNMENT + 1,), "uint8")}) == 3 * ALIGNMENT
    assert total_bytes({}) == ALIGNMENT


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_really_allocated_when_it_is_made() -> None:
    shared = SharedArrays({"a": ArraySpec((2**20,), "uint8")}, {})
    links = [path for path in Path("/proc/self/fd").glob("*") if os.path.islink(path)]
    files = [path for path in links if os.readlink(path).startswith("/memfd:partrain")]
    try:
        assert files
        assert {path.stat().st_size for path in files} == {2**20}
        assert all(path.stat().st_blocks * 512 >= 2**20 for path in files)
    finally:
        shared.close()


def test_no_array_at_all_is_a_plan_too() -> None:
    shared = SharedArrays({}, {})
    assert list(shared) == []
    shared.close()


def _double(shared: SharedArrays) -> None:
    shared["large"][:] *= 2
    shared["bytes"][1, 2] = shared.files["images"].shape[0]


def test_child_sees_and_changes_the_same_memory_and_knows_the_files() -> None:
    shared = SharedArrays(SPECS, {"images": MappedFile("/not/opened.npy", 128, (3, 2), "|u1")})
    try:
        shared["large"][:] = np.arange(3000).reshape(3, 1000)
        child = multiprocessing.get_context("spawn").Process(target=_double, args=(shared,))
        child.start()
        child.join()
        assert child.exitcode == 0
        child.close()
        assert shared["large"].tolist() == (2.0 * np.arange(3000).reshape(3, 1000)).tolist()
        assert shared["bytes"][1, 2] == 3
    finally:
        shared.close()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot allocate ahead")
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC])
def test_too_little_memory_is_a_message_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ResourceError, match=r"^64 MiB of shared memory are needed and cannot be had"):
        SharedArrays({"a": ArraySpec((2**26,), "uint8")}, {})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_address_space_that_is_too_small_is_a_message_too() -> None:
    program = """
import resource
from partrain.errors import ResourceError
from partrain.system.shared_arrays import ArraySpec, SharedArrays
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**24
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    SharedArrays({"a": ArraySpec((2**26,), "uint8")}, {})
except ResourceError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    assert result.stdout.startswith("64 MiB of shared memory are needed and cannot be had")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_has_no_name_that_a_crash_could_leave(arrays: SharedArrays) -> None:
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line for line in lines if "/memfd:partrain" in line]
    assert mapped
    assert all(line.endswith("(deleted)") for line in mapped)
