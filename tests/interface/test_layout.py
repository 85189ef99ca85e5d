"""Arrays with the channels last, in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import partrain
from partrain.errors import ConfigError, DataError

CONFIG: dict[str, Any] = {
    "network": [{"conv": {"filters": 2, "kernel": 3}}, "relu", "flatten", {"dense": {"units": 3}}],
    "training": {"epochs": 1, "optimizer": {"lr": 0.01}},
    "logging": {"plots": False},
}


def examples() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (120, 9, 8, 3), dtype=np.uint8), np.arange(120) % 3


def train(path: Path, images: np.ndarray, labels: np.ndarray, **options: Any) -> partrain.Run:
    return partrain.train(CONFIG, data=(images, labels), workers=0, run_dir=path, quiet=True, **options)


def test_arrays_train_evaluate_and_predict_in_their_layout(tmp_path: Path) -> None:
    images, labels = examples()
    with pytest.raises(DataError, match="looks like \\(examples, rows, columns, channels\\)"):
        train(tmp_path / "refused", images, labels)
    moved = np.moveaxis(images, 3, 1)
    first = train(tmp_path / "first", moved, labels)
    last = train(tmp_path / "last", images, labels, layout="channels_last")
    assert first.summary["parameters_sha256"] == last.summary["parameters_sha256"]
    again = partrain.open_run(last.path, quiet=True)
    # A run takes what it was trained on, and the other layout by its name.
    expected = first.predict_proba(moved)
    np.testing.assert_array_equal(again.predict_proba(images), expected)
    np.testing.assert_array_equal(first.predict_proba(images, layout="channels_last"), expected)
    np.testing.assert_array_equal(again.predict_proba(moved, layout="channels_first"), expected)
    assert again.evaluate(data=(images, labels), workers=0).loss == first.evaluate(data=(moved, labels), workers=0).loss


def test_images_in_another_layout_are_refused_with_the_right_one(tmp_path: Path) -> None:
    images, labels = examples()
    run = train(tmp_path / "run", np.moveaxis(images, 3, 1), labels)
    with pytest.raises(DataError, match="Their channels are last: give layout='channels_last'"):
        run.predict(images)
    with pytest.raises(DataError, match=r"numpy\.moveaxis\(images, 3, 1\)"):
        run.evaluate(data=(images, labels), workers=0)


def test_unknown_layout_is_one_message(tmp_path: Path) -> None:
    images, labels = examples()
    with pytest.raises(ConfigError, match=r"data\.layout"):
        train(tmp_path / "run", images, labels, layout="NHWC")
