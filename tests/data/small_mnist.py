"""A data set of seven examples that takes the place of MNIST."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from partrain.data.catalog import CATALOG, NamedDataset
from partrain.data.idx import FILE_NAMES
from tests.data.mirror_server import Mirror, answer_with
from tests.noise_data import idx_bytes


def contents_of(labels: list[int]) -> dict[str, bytes]:
    images = np.random.default_rng(0).integers(0, 256, (len(labels) + 2, 28, 28))
    arrays = (images[:-2], np.array(labels), images[-2:], np.array([9, 0]))
    return {name: idx_bytes(array) for name, array in zip(FILE_NAMES, arrays, strict=True)}


CONTENTS = contents_of([3, 1, 4, 1, 5])
PACKED = {name: gzip.compress(content) for name, content in CONTENTS.items()}


def offer(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes], *mirrors: str, **options: object) -> None:
    """Put a small "mnist" with these contents in the place of the real one."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    entry = NamedDataset(digests, tuple("0123456789"), mirrors, **options)  # type: ignore[arg-type]
    monkeypatch.setitem(CATALOG, "mnist", entry)


def write_files(folder: Path, names: tuple[str, ...] = FILE_NAMES, *, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name]))
        else:
            (folder / name).write_bytes(CONTENTS[name])


def serve_all(mirror: Mirror, folder: str = "/") -> None:
    for name, content in PACKED.items():
        mirror.answers[f"{folder}{name}.gz"] = answer_with(content)
