from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from partrain.errors import RunError
from partrain.store.checkpoint import Checkpoint, CorruptCheckpoint, decode, encode, read_shapes
from tests.store.sample_checkpoints import assert_same, make_checkpoint

ROOT = Path(__file__).parents[2]


def header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def signed(header: bytes, payload: bytes = b"") -> bytes:
    """Return a file with this header and a right digest; DIGEST in the header stands for it."""
    blank = len(header.replace(b"DIGEST", b"0" * 64)).to_bytes(8, "little") + header + payload
    digest = hashlib.sha256(blank.replace(b"DIGEST", b"0" * 64)).hexdigest()
    return blank.replace(b"DIGEST", digest.encode())


def assert_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptCheckpoint, match=r"^x\.safetensors: "):
        decode(data, "x.safetensors")


def test_decoded_checkpoint_has_the_bits_of_the_encoded_one() -> None:
    checkpoint = make_checkpoint()
    decoded = decode(encode(checkpoint), "x")
    assert_same(decoded, checkpoint)
    assert decoded.step == 3126
    for tensor in decoded.tensors.values():
        assert tensor.flags.writeable
        assert tensor.flags.c_contiguous
        assert tensor.flags.owndata
        assert tensor.dtype.isnative


@pytest.mark.parametrize(
    "tensor",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.arange(4, dtype=">f4"),
        np.array([np.nan, -0.0, np.inf, 5e-324]),
        np.zeros((0, 3), np.float32),
        np.array(True),
        np.float16([1, 2]),
    ],
)
def test_arrays_of_any_layout_are_read_back_in_c_order(tensor: np.ndarray) -> None:
    decoded = decode(encode(Checkpoint({"w": tensor}, {"step": 0})), "x").tensors["w"]
    assert decoded.shape == tensor.shape
    assert decoded.tobytes() == tensor.astype(tensor.dtype.newbyteorder("=")).tobytes()


def test_equal_states_are_equal_bytes_in_any_order_of_names() -> None:
    checkpoint = make_checkpoint()
    shuffled = Checkpoint(dict(reversed(checkpoint.tensors.items())), dict(reversed(checkpoint.metadata.items())))
    assert encode(checkpoint) == encode(shuffled)


def test_another_process_writes_the_same_bytes() -> None:
    code = (
        "import sys; from partrain.store.checkpoint import encode;"
        "from tests.store.sample_checkpoints import make_checkpoint;"
        "sys.stdout.buffer.write(encode(make_checkpoint()))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True)
    assert run.stdout == encode(make_checkpoint()), run.stderr


def test_safetensors_itself_reads_the_file_and_finds_one_metadata_key() -> None:
    checkpoint = make_checkpoint()
    data = encode(checkpoint)
    np.testing.assert_array_equal(safetensors.numpy.load(data)["conv1.weight"], checkpoint.tensors["conv1.weight"])
    header = json.loads(data[8 : header_end(data)])
    (text,) = header["__metadata__"].values()
    metadata = json.loads(text)
    assert text == json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    digest = metadata["file_sha256"]
    assert hashlib.sha256(data.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
    assert metadata["format"] == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"step": -1},
        {"step": 1.0},
        {"step": True},
        {"step": 1, "format": 1},
        {"step": 1, "file_sha256": ""},
        {"step": 1, "best": float("nan")},
        {"step": 1, "nested": {"file_sha256": "a" * 64}},
    ],
)
def test_metadata_that_could_not_be_read_back_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"step|file_sha256|JSON"):
        encode(Checkpoint({}, metadata))


def test_every_flipped_bit_of_the_header_is_found() -> None:
    data = bytearray(encode(make_checkpoint()))
    for bit in range(8 * header_end(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptCheckpoint):
            decode(bytes(data), "x")
        data[bit // 8] ^= 1 << bit % 8
    decode(bytes(data), "x")


def test_a_thousand_random_flips_of_the_payload_are_found() -> None:
    data = bytearray(encode(make_checkpoint()))
    rng = random.Random(0)
    for _ in range(1000):
        bit = rng.randrange(8 * header_end(data), 8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        assert_corrupt(bytes(data))
        data[bit // 8] ^= 1 << bit % 8
    decode(bytes(data), "x")


def test_every_truncation_and_extensions_are_found() -> None:
    data = encode(make_checkpoint())
    for length in range(len(data)):
        assert_corrupt(data[:length])
    for extension in (b"\0", b" ", b"\n", data):
        assert_corrupt(data + extension)
        assert_corrupt(extension + data)


def test_other_spellings_of_the_same_digest_are_found() -> None:
    data = encode(make_checkpoint())
    header = data[8 : header_end(data)]
    digest = json.loads(json.loads(header)["__metadata__"]["partrain"])["file_sha256"].encode()
    letter = next(character for character in digest.decode() if character in "abcdef")
    escaped = digest.replace(letter.encode(), b"\\\\u%04x" % ord(letter), 1)
    for spelling in (digest.upper(), escaped, digest[::-1], b"0" * 64, b"", digest[:-1]):
        changed = header.replace(digest, spelling)
        assert_corrupt(len(changed).to_bytes(8, "little") + changed + data[header_end(data) :])


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff" * 8)
@example((2**63).to_bytes(8, "little") + b"{}")
def test_any_bytes_are_reported_as_corrupt(data: bytes) -> None:
    assert_corrupt(data)


FIELD = rb"\"file_sha256\":\"DIGEST\""
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=9), children, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(before=st.binary(max_size=60), after=st.binary(max_size=60), payload=st.binary(max_size=9))
@example(before=b"[" * 100_000, after=b"", payload=b"")
@example(before=b'{"__metadata__":{"partrain":"{', after=b'}"}}', payload=b"")
@example(before=b'{"__metadata__":{"partrain":"{\\"format\\":1,\\"step\\":1,', after=b'}"}}', payload=b"x")
@example(before=b'{"__metadata__":{"partrain":"' + b"[" * 100_000, after=b'"}}', payload=b"")
@example(before=b'{"__metadata__":{"partrain":"{\\"format\\":' + b"9" * 5000 + b",", after=b'}"}}', payload=b"")
def test_any_bytes_with_a_right_digest_are_reported_as_corrupt(before: bytes, after: bytes, payload: bytes) -> None:
    assert_corrupt(signed(before + FIELD + after, payload))


@settings(deadline=None)
@given(metadata=st.dictionaries(st.sampled_from(["format", "step", "x"]), JSON_VALUES), entry=JSON_VALUES)
@example(metadata={"format": 1, "step": 1}, entry={"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]})
@example(metadata={"format": 1, "step": 1}, entry={"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2]})
def test_odd_headers_with_a_right_digest_are_loaded_or_refused(metadata: dict[str, Any], entry: Any) -> None:
    text = json.dumps(metadata | {"file_sha256": "DIGEST"}, separators=(",", ":"))
    header = json.dumps({"__metadata__": {"partrain": text}, "w": entry}).encode()
    with pytest.raises(RunError, match=r"^x: "):
        decode(signed(header, b"\0\0"), "x")


def test_a_newer_format_is_refused_and_not_called_corrupt() -> None:
    text = json.dumps({"file_sha256": "DIGEST", "format": 2, "step": 1}, separators=(",", ":"))
    header = json.dumps({"__metadata__": {"partrain": text}}).encode()
    with pytest.raises(RunError, match=r"format 2.*newer partrain") as caught:
        decode(signed(header), "x")
    assert not isinstance(caught.value, CorruptCheckpoint)


def test_a_plain_safetensors_file_is_not_a_checkpoint() -> None:
    assert_corrupt(safetensors.numpy.save({"w": np.zeros(3)}))


def test_the_shapes_of_a_file_are_read_from_its_header(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    path = tmp_path / "file"
    path.write_bytes(encode(checkpoint))
    assert read_shapes(path) == {name: tensor.shape for name, tensor in checkpoint.tensors.items()}


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 8, (2).to_bytes(8, "little") + b"[]"])
def test_a_damaged_header_has_no_shapes(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpoint, match="file: is truncated or altered"):
        read_shapes(path)
