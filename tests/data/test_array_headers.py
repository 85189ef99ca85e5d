"""Headers of .npy files that NumPy never writes: an error names the file, also in an .npz file and for predict."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from partrain.data.arrays import load_arrays
from partrain.data.image_files import read_image
from partrain.errors import DataError, ResourceError

NAMES = ("train_images", "train_labels", "test_images", "test_labels", "class_names", "validation_examples")
HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
HEADERS = {
    "shape of 4,000 digits": HEADER.format("|u1", f"({4000 * '9'}, 8, 8)"),
    "shape of 4,000 digits and 0": HEADER.format("|u1", f"({4000 * '9'}, 8, 0)"),
    "shape of 20 digits": HEADER.format("|u1", f"({20 * '9'}, 8, 8)"),
    "hexadecimal shape": HEADER.format("|u1", f"(0x{6000 * 'f'}, 8, 8)"),
    "negative shape": HEADER.format("|u1", "(-20, -8, 8)"),
    "True in a shape": HEADER.format("|u1", "(True, 8, 8)"),
    "False in a shape": HEADER.format("|u1", "(20, False, 8)"),
    "fraction in a shape": HEADER.format("|u1", "(20.0, 8, 8)"),
    "complex number in a shape": HEADER.format("|u1", "(20+1j, 8, 8)"),
    "None in a shape": HEADER.format("|u1", "(None, 8, 8)"),
    "shape that is a text": HEADER.format("|u1", "'20'"),
    "too many dimensions": HEADER.format("|u1", f"(20, 8, 8{64 * ', 1'})"),
    "items of 4,000 digits": HEADER.format(f"|S{4000 * '9'}", "(20, 8, 8)"),
    "items of no bytes": HEADER.format("|V0", "(20, 8, 8)"),
    "intervals of time": HEADER.format("<m8[ns]", "(20,)"),
    "dates": HEADER.format("<M8[D]", "(20,)"),
    "nested brackets": 3000 * "[",
    "nothing": "",
    "other keys": "{1: 2}",
}


def npy(header: str) -> bytes:
    text = header.encode()
    text += b" " * (-(11 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(2560)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "arrays"
    folder.mkdir()
    for split, number in (("train", 20), ("test", 10)):
        np.save(folder / f"{split}_images.npy", np.zeros((number, 8, 8), np.uint8))
        np.save(folder / f"{split}_labels.npy", np.arange(number) % 3)
    return folder


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_array_with_an_impossible_header_is_refused(folder: Path, tmp_path: Path, header: str) -> None:
    originals = {path.stem: path.read_bytes() for path in folder.iterdir()}
    for name in NAMES:
        contents = originals | {name: npy(header)}
        with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
            for key, content in contents.items():
                (folder / f"{key}.npy").write_bytes(content)
                archive.writestr(f"{key}.npy", content)
        for path, shown in ((folder, f"{name}.npy: "), (tmp_path / "arrays.npz", f"arrays.npz: {name}: ")):
            with pytest.raises((DataError, ResourceError)) as refusal:
                load_arrays(path)
            message = str(refusal.value)
            assert shown in message
            assert "\n" not in message
            assert len(message) < 700
        (folder / f"{name}.npy").unlink()


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_image_with_an_impossible_header_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "image.npy").write_bytes(npy(header))
    with pytest.raises(DataError, match=r"image\.npy: "):
        read_image(tmp_path / "image.npy", (1, 8, 8), "uint8")
