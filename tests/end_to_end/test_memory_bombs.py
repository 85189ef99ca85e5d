"""Small files that promise more than the memory holds are refused before it is allocated."""

from __future__ import annotations

import gzip
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from partrain.errors import RunError
from partrain.store.checkpoint import encode
from partrain.store.plain_pickle import load_plain_pickle
from partrain.system.machine import MIB
from tests.noise_data import idx_bytes
from tests.program import Result
from tests.saved_runs import write_saved_run
from tests.store.sample_checkpoints import make_checkpoint

Call = Callable[..., Result]


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", lambda: 20 * MIB)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.data.image_directory_cache.user_cache_directory", lambda: tmp_path / "cache")


def write_images_of(folder: Path, kind: str) -> Path:
    """Write a data set whose largest file is small and has 36 MB or more of content."""
    zeros = np.zeros((16, 1536, 1536), np.uint8)
    labels = np.zeros(16, np.uint8)
    if kind == "npz":
        arrays = {"train_images": zeros, "train_labels": labels, "test_images": zeros[:1], "test_labels": labels[:1]}
        np.savez_compressed(folder / "bomb.npz", **arrays)
        return folder / "bomb.npz"
    if kind == "idx":
        (folder / "idx").mkdir()
        for prefix in ("train", "t10k"):
            (folder / f"idx/{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(zeros), 1))
            (folder / f"idx/{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
        return folder / "idx"
    grey = PIL.Image.fromarray(np.zeros((2600, 2600), np.uint16))
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / "pictures" / split / name).mkdir(parents=True)
            grey.save(folder / "pictures" / split / name / "x.png")
    return folder / "pictures"


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", ["npz", "idx", "pictures"])
def test_data_is_refused_in_one_message(call_partrain: Call, tmp_path: Path, kind: str) -> None:
    path = write_images_of(tmp_path, kind)
    assert all(file.stat().st_size < 300_000 for file in tmp_path.rglob("*") if file.is_file())
    size = ("--size", 8, "--on-broken", "skip") if kind == "pictures" else ()
    tracemalloc.start()
    result = call_partrain("data", "show", path, *size)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "does not fit into memory: it needs" in result.refusal
    assert "20 MiB are available" in result.stderr
    assert peak_bytes < 20 * MIB
    assert not list(tmp_path.glob("cache/packed/*/pack.json"))  # and no picture was left out


@pytest.mark.usefixtures("little_memory")
def test_picture_is_refused_in_one_message(call_partrain: Call, tmp_path: Path) -> None:
    write_saved_run(tmp_path / "run", ["flatten", {"dense": {"units": 3}}], shape=(1, 8, 8))
    PIL.Image.new("L", (2600, 2600)).save(tmp_path / "x.png")
    assert "x.png: does not fit into memory" in call_partrain("predict", tmp_path / "run", tmp_path / "x.png").refusal


@pytest.mark.usefixtures("little_memory")
def test_checkpoint_with_a_hole_is_refused_in_one_message(call_partrain: Call, tmp_path: Path) -> None:
    write_saved_run(tmp_path / "run", ["flatten", {"dense": {"units": 3}}], shape=(1, 8, 8))
    with open(tmp_path / "run/checkpoints/step-00000009.safetensors", "wb") as file:
        file.write(encode(make_checkpoint()))
        file.truncate(2**40)
    message = call_partrain("export", tmp_path / "run", "--to", tmp_path / "x.npz").refusal
    assert "step-00000009.safetensors: does not fit into memory" in message


def many_encodings(num: int) -> bytes:
    text = b"a" * MIB
    once = b"X" + struct.pack("<I", len(text)) + text + b"X\x06\0\0\0latin1\x86q\x03"
    return b"\x80\x02c_codecs\nencode\nq\x00" + once + b"00](" + b"h\x00h\x03R" * num + b"e."


def many_arrays(num: int) -> bytes:
    """Return a pickle that fills a new array with the same content again and again."""
    one = pickle.dumps(np.zeros(MIB, np.uint8), 2)
    state = one[-4:-2].replace(b"q", b"h")  # it is in the memo: "tq<place>b."
    create = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return one[:-2] + b"00](" + (create + state + b"b") * num + b"e."


@pytest.mark.parametrize("bomb", [many_encodings, many_arrays])
def test_pickle_that_copies_one_content_many_times_is_refused_before_the_memory_is_full(
    tmp_path: Path, call_partrain: Call, bomb: Callable[[int], bytes]
) -> None:
    (tmp_path / "x.pkl").write_bytes(bomb(3000))
    load_plain_pickle(bomb(2), "a few copies")
    result = call_partrain("import-article", tmp_path / "x.pkl", "--run-dir", tmp_path / "run")
    assert "it makes many copies of the same content" in result.refusal
    tracemalloc.start()
    with pytest.raises(RunError):
        load_plain_pickle(bomb(3000), "many copies")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20 * MIB


@pytest.mark.usefixtures("little_memory")
def test_pickle_of_many_parts_is_refused(tmp_path: Path, call_partrain: Call) -> None:
    (tmp_path / "x.pkl").write_bytes(b"(" + b"]" * 210_000 + b"l.")
    message = call_partrain("import-article", tmp_path / "x.pkl", "--run-dir", tmp_path / "run").refusal
    assert "x.pkl: does not fit into memory: it needs 29 MiB" in message
