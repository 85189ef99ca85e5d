from __future__ import annotations

import collections
import contextlib
import datetime
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.errors import RunError
from partrain.store import plain_pickle
from partrain.store.plain_pickle import RefusedPickle, load_plain_pickle

PROTOCOLS = pytest.mark.parametrize("protocol", range(6))


class Touch:
    """Creates a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class Plain:
    """An object of a class of this file, with a state."""

    def __init__(self) -> None:
        self.state = 1


def renamed(data: bytes, old: str, new: str) -> bytes:
    """Replace a module's name in a pickle, and the lengths that precede it."""
    data = data.replace(f"c{old}\n".encode(), f"c{new}\n".encode())
    data = data.replace(b"\x8c%c%b" % (len(old), old.encode()), b"\x8c%c%b" % (len(new), new.encode()))
    has_frame = data[2:3] == b"\x95"
    return data[:3] + struct.pack("<Q", len(data) - 11) + data[11:] if has_frame else data


@PROTOCOLS
def test_arrays_numbers_lists_and_tuples_are_read_back_equal(protocol: int) -> None:
    values = [
        np.arange(24.0).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.arange(24, dtype=">f4").reshape(2, 3, 4).transpose(1, 0, 2),
        np.zeros((3, 0)),
        np.array(2.5),
        np.array([True, False]),
        (np.float64(0.1), np.float32(3), np.int64(-7), np.bool_(True)),
        [1, 2**70, -1.5, True, None, "Größe", (), [[]]],
    ]
    back = load_plain_pickle(pickle.dumps(values, protocol), "a file")
    for array, expected in zip(back[:6], values[:6], strict=True):
        np.testing.assert_array_equal(np.asarray(array), expected)
        assert array.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    assert back[6:] == values[6:]
    assert [type(number) for number in back[6]] == [type(number) for number in values[6]]


@PROTOCOLS
def test_files_of_older_and_newer_numpy_are_read(protocol: int) -> None:
    data = pickle.dumps([np.arange(3.0), np.float64(0.5)], protocol)
    for module in ("multiarray", "numeric"):
        data = renamed(data, f"numpy._core.{module}", f"numpy.core.{module}")
    assert b"numpy._core" not in data
    array, number = load_plain_pickle(data, "a file")
    assert (array.tolist(), number) == ([0, 1, 2], 0.5)
    for module in ("multiarray", "numeric"):
        data = renamed(data, f"numpy.core.{module}", f"numpy._core.{module}")
    assert b"numpy.core" not in data
    assert load_plain_pickle(data, "a file")[1] == 0.5


@PROTOCOLS
def test_a_function_that_the_file_would_call_is_named_and_not_called(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    data = pickle.dumps([np.arange(3.0), Touch(made)], protocol)
    with pytest.raises(RefusedPickle, match=r"a file: asks for 'posix\.mkdir'.*refused. No code from the file was run"):
        load_plain_pickle(data, "a file")
    assert not made.exists()
    pickle.loads(data)
    assert made.exists()  # so the file is indeed dangerous


@PROTOCOLS
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Plain(), f"{__name__}.Plain"),
        (datetime.date(2026, 1, 1), "datetime.date"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (np.random.Philox(0), "numpy.random"),
        (np.ma.masked_array([1.0], [True]), "numpy.ma.core._mareconstruct"),
        (eval, "eval"),
        (os.path.join, "posixpath.join"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_other_class_and_function_is_refused_with_its_name(value: Any, name: str, protocol: int) -> None:
    if protocol < 2 and isinstance(value, Plain):
        name = "copy_reg._reconstructor"  # the class is its argument
    with pytest.raises(RefusedPickle, match=rf"a file: asks for '[a-z_.]*{re.escape(name)}"):
        load_plain_pickle(pickle.dumps([value], protocol), "a file")


@pytest.mark.parametrize("value", [{"a": 1}, {1, 2}, frozenset([1])])
def test_dictionaries_and_sets_are_refused(value: object) -> None:
    with pytest.raises(RefusedPickle, match="No code from the file was run"):
        load_plain_pickle(pickle.dumps(value), "a file")


def test_arrays_of_objects_texts_and_structures_are_refused() -> None:
    for array in (np.array([1, "a"], object), np.array(["a"]), np.zeros(2, [("x", "f8")]), np.array(["2026"], "M8")):
        with pytest.raises(RunError):
            load_plain_pickle(pickle.dumps(array), "a file")


@PROTOCOLS
def test_a_file_truncated_anywhere_is_refused_with_a_message(protocol: int) -> None:
    data = pickle.dumps([np.arange(3.0), [np.float64(0.5)], "text"], protocol)
    for length in range(len(data)):
        with pytest.raises(RunError, match="a file: is damaged, truncated, or not a pickle"):
            load_plain_pickle(data[:length], "a file")


@PROTOCOLS
def test_a_damaged_file_is_read_or_refused_with_a_message(protocol: int) -> None:
    data = pickle.dumps([[np.arange(3.0).reshape(3, 1)], [np.float64(0.5)]], protocol)
    rng = np.random.Generator(np.random.Philox(key=protocol))
    for _ in range(400):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(RunError):
            load_plain_pickle(bytes(damaged), "a file")


BOMBS = {
    "bytes longer than the file": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "bytes longer than any memory": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "memo entry": b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
    "memo entry, as a text": b"Np4000000000\n.",
    "number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "shape without content": pickle.dumps(np.zeros(3), 4).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    "extension": b"\x80\x02\x82\x01.",
    "persistent object": b"Pname\n.",
    "out-of-band buffer": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_with_a_message(data: bytes) -> None:
    with pytest.raises(RunError, match=r"^a file: "):
        load_plain_pickle(data, "a file")


def test_deep_nesting_does_not_crash() -> None:
    depth = 200_000
    nested = load_plain_pickle(b"]" * depth + b"a" * (depth - 1) + b".", "a file")
    assert len(nested) == 1


def test_the_functions_of_numpy_cannot_be_changed_or_called_directly() -> None:
    with pytest.raises(RunError, match="a function is assigned a state"):
        load_plain_pickle(b"\x80\x02c_codecs\nencode\n(I1\nI2\ntb.", "a file")
    with pytest.raises(RunError, match="unknown way"):
        load_plain_pickle(b"\x80\x02cnumpy\nndarray\nI5\n\x85R.", "a file")


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps([1.0] * 1000)
    monkeypatch.setattr(plain_pickle, "MAX_INSTRUCTIONS", 100)
    with pytest.raises(RunError, match="more than 100 parts"):
        load_plain_pickle(data, "a file")
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 100)
    with pytest.raises(RunError, match="larger than 100 bytes"):
        load_plain_pickle(data, "a file")
