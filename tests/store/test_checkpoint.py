import errno
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
from partrain.store.checkpoint import (
    Checkpoint,
    CorruptCheckpoint,
    checkpoint_path,
    decode,
    delete_others,
    encode,
    load,
    newest_good,
    prune,
    save,
)
from tests.store.file_faults import fault_at_call, recorded_calls
from tests.store.sample_checkpoints import make_checkpoint, replace_old_by_new

ROOT = Path(__file__).parents[2]


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.metadata == other.metadata
    assert sorted(one.tensors) == sorted(other.tensors)
    for name, tensor in one.tensors.items():
        assert (tensor.dtype, tensor.shape) == (other.tensors[name].dtype, other.tensors[name].shape)
        assert tensor.tobytes() == other.tensors[name].tobytes()


def header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def signed(header: bytes, payload: bytes = b"") -> bytes:
    """Return a file of this header whose digest is right; the header holds it as DIGEST."""
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
def test_arrays_of_any_layout_come_back_in_c_order(tensor: np.ndarray) -> None:
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


def test_safetensors_itself_reads_the_file_and_finds_one_metadata_key(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    path = save(tmp_path, checkpoint)
    assert path == tmp_path / "step-00003126.safetensors" == checkpoint_path(tmp_path, 3126)
    with safetensors.safe_open(path, framework="np") as file:
        (text,) = file.metadata().values()
        np.testing.assert_array_equal(file.get_tensor("conv1.weight"), checkpoint.tensors["conv1.weight"])
    metadata = json.loads(text)
    assert text == json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    digest = metadata["file_sha256"]
    data = path.read_bytes()
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
def test_metadata_that_would_not_come_back_is_refused(metadata: dict[str, Any]) -> None:
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
def test_garbage_is_corrupt_and_nothing_else(data: bytes) -> None:
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
def test_garbage_with_a_right_digest_is_corrupt_and_nothing_else(before: bytes, after: bytes, payload: bytes) -> None:
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


def test_newer_format_is_refused_by_name_and_not_called_corrupt(tmp_path: Path) -> None:
    text = json.dumps({"file_sha256": "DIGEST", "format": 2, "step": 1}, separators=(",", ":"))
    header = json.dumps({"__metadata__": {"partrain": text}}).encode()
    checkpoint_path(tmp_path, 9).write_bytes(signed(header))
    save(tmp_path, make_checkpoint(8))
    with pytest.raises(RunError, match=r"format 2.*newer partrain") as caught:
        newest_good(tmp_path, pytest.fail)
    assert not isinstance(caught.value, CorruptCheckpoint)


def test_plain_safetensors_file_is_no_checkpoint() -> None:
    assert_corrupt(safetensors.numpy.save({"w": np.zeros(3)}))


def test_newest_good_passes_over_damaged_files_with_a_warning_each(tmp_path: Path) -> None:
    for step in (5, 90, 100_000_000, 200_000_000):
        save(tmp_path, make_checkpoint(step))
    truncated, altered = checkpoint_path(tmp_path, 200_000_000), checkpoint_path(tmp_path, 100_000_000)
    os.truncate(truncated, 100)
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    (tmp_path / ".step-99999999.safetensors.1.tmp").write_bytes(b"half")
    (tmp_path / "step-00000091.safetensors").mkdir()
    warnings: list[str] = []
    found = newest_good(tmp_path, warnings.append)
    assert found is not None
    assert_same(found[0], make_checkpoint(90))
    assert_same(load(found[1]), found[0])
    assert found[1] == checkpoint_path(tmp_path, 90)
    assert [str(truncated) in warnings[0], str(altered) in warnings[1], len(warnings)] == [True, True, 2]


def test_unreadable_file_is_passed_over_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, make_checkpoint(1))
    bad = save(tmp_path, make_checkpoint(2))
    read_bytes = Path.read_bytes

    def failing_disk(path: Path) -> bytes:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing_disk)
    warnings: list[str] = []
    found = newest_good(tmp_path, warnings.append)
    assert found is not None
    assert found[0].step == 1
    assert warnings == [f"{bad}: cannot be read: Input/output error. It is passed over."]


def test_reader_finds_the_newer_file_when_the_training_deletes_the_one_it_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save(tmp_path, make_checkpoint(1))
    read_bytes = Path.read_bytes

    def overtaken(path: Path) -> bytes:
        if path == old:
            prune(tmp_path, newest=save(tmp_path, make_checkpoint(2)), keep_last=1, best_step=None)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", overtaken)
    found = newest_good(tmp_path, pytest.fail)
    assert found is not None
    assert found[0].step == 2


def test_folder_without_good_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest_good(tmp_path, pytest.fail) is None
    assert newest_good(tmp_path / "missing", pytest.fail) is None
    checkpoint_path(tmp_path, 1).write_bytes(b"")
    warnings: list[str] = []
    assert newest_good(tmp_path, warnings.append) is None
    assert len(warnings) == 1


def remaining_steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*"))


@pytest.mark.parametrize(
    ("keep_last", "best_step", "remaining"),
    [(1, None, [40]), (2, None, [30, 40]), (2, 10, [10, 30, 40]), (1, 40, [40]), (9, 20, [10, 20, 30, 40])],
)
def test_prune_keeps_the_last_and_the_best(
    tmp_path: Path, keep_last: int, best_step: int | None, remaining: list[int]
) -> None:
    for step in (10, 20, 30, 40):
        newest = save(tmp_path, make_checkpoint(step))
    prune(tmp_path, newest=newest, keep_last=keep_last, best_step=best_step)
    assert remaining_steps(tmp_path) == remaining


def test_damaged_file_of_a_later_step_does_not_push_out_the_good_one(tmp_path: Path) -> None:
    save(tmp_path, make_checkpoint(10))
    checkpoint_path(tmp_path, 40).write_bytes(b"damaged, so the run was resumed from step 10")
    newest = save(tmp_path, make_checkpoint(20))
    prune(tmp_path, newest=newest, keep_last=1, best_step=None)
    assert remaining_steps(tmp_path) == [20]


def test_prune_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_last"):
        prune(tmp_path, newest=save(tmp_path, make_checkpoint(1)), keep_last=0, best_step=None)


def test_delete_others_spares_other_files_and_sweeps_leftovers(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, make_checkpoint(step))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f".step-00000003.safetensors.{os.getpid()}.tmp").write_bytes(b"half")
    delete_others(tmp_path, {checkpoint_path(Path("elsewhere"), 2)})
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "step-00000002.safetensors"]


def test_old_file_is_deleted_only_after_the_new_one_is_durable(tmp_path: Path) -> None:
    save(tmp_path, make_checkpoint(1))
    with recorded_calls() as calls:
        replace_old_by_new(tmp_path)
    expected = ["open", "write", "fsync", "close", "replace", "open", "fsync", "close", "unlink"]
    assert calls.names == expected


def assert_old_or_new_loads(folder: Path) -> None:
    found = newest_good(folder, pytest.fail)
    assert found is not None
    assert_same(found[0], make_checkpoint(found[0].step))
    assert found[0].step in (1, 2)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_failure_at_any_call_of_a_save_leaves_old_or_new_and_no_temporary(tmp_path: Path, number: int) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for call in range(1, 10):
        for path in tmp_path.iterdir():
            path.unlink()
        save(tmp_path, make_checkpoint(1))
        with fault_at_call(call, fail), pytest.raises(OSError, match=os.strerror(number)):
            replace_old_by_new(tmp_path)
        assert_old_or_new_loads(tmp_path)
        assert checkpoint_path(tmp_path, 1).exists(), "the old file goes last"
        assert all(name.startswith("step-") for name in os.listdir(tmp_path))
    with fault_at_call(10, fail):
        replace_old_by_new(tmp_path)


def test_kill_at_any_call_of_a_save_leaves_old_or_new(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.store.sample_checkpoints import replace_old_by_new;"
        "from tests.store.file_faults import fault_at_call, kill_this_process\n"
        "with fault_at_call(int(sys.argv[1]), kill_this_process): replace_old_by_new(Path(sys.argv[2]))"
    )
    for call in range(1, 100):
        folder = tmp_path / str(call)
        folder.mkdir()
        save(folder, make_checkpoint(1))
        child = subprocess.run([sys.executable, "-c", code, str(call), str(folder)], cwd=ROOT)
        assert_old_or_new_loads(folder)
        leftovers = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        assert len(leftovers) == (1 if 2 <= call <= 5 else 0)
        replace_old_by_new(folder)
        assert os.listdir(folder) == ["step-00000002.safetensors"]
        if child.returncode == 0:
            break
    assert call == 10, "a call for each step of the save, and one more to see it succeed"
