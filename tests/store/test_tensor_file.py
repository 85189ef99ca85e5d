from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from partrain.errors import RunError, UserError
from partrain.store.checkpoint import Checkpoint, encode
from partrain.store.tensor_file import read_tensors


def write(path: Path, header: dict[str, object], payload: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def test_floating_point_tensors_keep_their_values_in_each_type(tmp_path: Path) -> None:
    numbers = np.array([[1.5, -2.0], [0.0, 2.0**-14]])
    arrays = {f"{dtype}.weight": numbers.astype(dtype) for dtype in ("float16", "float32", "float64")}
    safetensors.numpy.save_file(arrays | {"steps": np.array(3)}, tmp_path / "f")
    found = read_tensors(tmp_path / "f")
    assert found.arrays.keys() == arrays.keys()
    for name, array in found.arrays.items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, numbers)
    assert found.dtypes == {f"{dtype}.weight": dtype for dtype in ("float16", "float32", "float64")} | {"steps": "I64"}
    assert found.sha256 == hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest()


def test_bfloat16_is_the_first_half_of_float32(tmp_path: Path) -> None:
    halves = (np.array([1.0, -2.5, 3e38, np.inf, 1e-40], np.float32).view(np.uint32) >> 16).astype("<u2")
    entry = {"dtype": "BF16", "shape": [5, 1], "data_offsets": [0, 10]}
    found = read_tensors(write(tmp_path / "f", {"w": entry}, halves.tobytes()))
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found.arrays["w"], expected[:, None])
    assert (found.arrays["w"].dtype, found.dtypes) == (np.float32, {"w": "bfloat16"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04" + bytes(60),
        (2**62).to_bytes(8, "little") + b"{}",
        (90 * 2**20).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
    ],
    ids=["empty", "pickle", "zip", "endless-header", "large-header", "list", "no-tensor"],
)
def test_file_of_another_kind_is_one_message_that_says_how_to_write_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(RunError, match=r"model\.pth: is not a safetensors file, or is damaged .*save_file"):
        read_tensors(tmp_path / "model.pth")


def test_tensor_that_is_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    with pytest.raises(RunError, match="is not a safetensors file"):
        read_tensors(write(tmp_path / "f", {"w": entry}, bytes(8)))


def test_file_with_a_hole_of_any_size_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        file.truncate(2**42)
    with pytest.raises(UserError, match="does not fit into memory"):
        read_tensors(tmp_path / "f")


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read: No such file"):
        read_tensors(tmp_path / "f")


def test_altered_checkpoint_is_refused(tmp_path: Path) -> None:
    content = bytearray(encode(Checkpoint({"conv1.weight": np.ones(4, np.float32)}, {"step": 3})))
    (tmp_path / "f").write_bytes(content)
    assert read_tensors(tmp_path / "f").arrays.keys() == {"conv1.weight"}
    assert read_tensors(tmp_path / "f").is_checkpoint
    content[-1] ^= 1
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(RunError, match="does not match its digest"):
        read_tensors(tmp_path / "f")
