"""A directory of 5,000 images in ten classes, from training to prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import partrain
from tests.image_tree import CLASS_NAMES, write_images
from tests.program import Result

Call = Callable[..., Result]

CONFIG: dict[str, Any] = {
    "name": "pictures",
    "data": {"name": "folder", "path": "pictures", "size": [20, 24], "channels": 3, "on_broken": "skip"},
    "network": [
        {"conv": {"filters": 6, "kernel": 3, "stride": 2}},
        "relu",
        {"max_pool": {"window": 2}},
        "flatten",
        {"dense": {"units": 32}},
        "relu",
        {"dense": {"units": 10}},
    ],
    "training": {"epochs": 4, "class_weights": "balanced", "optimizer": {"lr": 0.005}},
    "logging": {"plots": False},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_images(folder / "pictures", 5000, num_broken=7)
    (folder / "pictures.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("partrain.data.image_directory_cache.user_cache_directory", lambda: folder / "cache")


def train(call_partrain: Call, run: str, *arguments: object) -> str:
    """Return the digest of the parameters."""
    result = call_partrain("--config", "pictures.yaml", "--run-dir", run, "-q", *arguments)
    assert result.exit_code == 0, result.stderr
    return digest_of(Path(run))


def digest_of(run: Path) -> str:
    summary: dict[str, str] = json.loads((run / "summary.json").read_text())
    return summary["parameters_sha256"]


def test_own_pictures_train_evaluate_and_predict_by_the_names_of_their_classes(
    call_partrain: Call, folder: Path
) -> None:
    digest = train(call_partrain, "run", "--workers", 2)
    record = json.loads((folder / "run/run.json").read_text())
    assert record["data"]["skipped"] == 7
    assert len(record["data"]["skipped_files"]) == 7
    assert record["data"]["class_names"] == sorted(CLASS_NAMES)
    assert len(record["data"]["class_weights"]) == 10
    assert len(record["data"]["normalisation"]["mean"]) == 3

    evaluated = call_partrain("evaluate", "run", "-q", "--workers", 0)
    for name in CLASS_NAMES:
        assert name in evaluated.stdout
    report = json.loads((folder / "run/evaluation-test.json").read_text())
    assert report["accuracy"] > 0.6  # of ten classes, digits dark on light and light on dark

    some = [path for name in CLASS_NAMES for path in sorted(Path("pictures", name).glob("[0-9]*"))[:3]]
    predicted = json.loads(call_partrain("predict", "run", *some, "--json", "-q").stdout)
    right = [entry["class"] == path.parent.name for entry, path in zip(predicted, some, strict=True)]
    assert np.mean(right) > 0.6
    assert "true class: " in call_partrain("predict", "run", "--index", 0, "-q").stdout

    # C1: the same images, however they are brought.
    digests = {"folder, 0 workers": train(call_partrain, "again", "--workers", 0)}
    for to in ("packed.npz", "packed"):
        assert call_partrain("data", "pack", "pictures.yaml", "--to", to, "-q").exit_code == 0
        fields = f"data={{name: arrays, path: {to}}}"
        digests[to] = train(call_partrain, f"run-{to}", "--workers", 1, "--set", fields)
    with np.load("packed.npz") as arrays:
        num_validation = int(arrays["validation_examples"])
        data = {
            "name": "memory",
            "train_examples": len(arrays["train_labels"]) - num_validation,
            "validation_examples": num_validation,
        }
        run = partrain.train(
            CONFIG | {"data": data},
            data=(arrays["train_images"], arrays["train_labels"]),
            test=(arrays["test_images"], arrays["test_labels"]),
            class_names=arrays["class_names"].tolist(),
            workers=0,
            quiet=True,
        )
    digests["memory"] = digest_of(run.path)
    assert set(digests.values()) == {digest}, digests
    of_data = {json.loads(path.read_text())["data"]["digest"] for path in folder.glob("*/run.json")}
    assert len(of_data) == 1

    compared = call_partrain("compare", "run", "run-packed")
    assert compared.exit_code == 0
    assert "bit for bit the same" in compared.stdout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.path=nowhere", "nowhere: cannot be read: No such file or directory"),
        ("data.path=pictures.yaml", "is a file, expected a directory"),
        ("data.path=pictures/uno", "contains no subdirectories"),
        ("data.on_broken=error", "7 images cannot be used"),
        ("data.size=null", "data.size must give the size that images are resized to"),
        ("data.size=[0, 3]", "data.size"),
        ("data.channels=2", "data.channels"),
        ("data.on_broken=ignore", "data.on_broken"),
        ("data.name=arrays", "data.size goes with data.name folder, not with arrays"),
    ],
)
def test_folder_that_cannot_be_used_is_one_message(call_partrain: Call, setting: str, message: str) -> None:
    result = call_partrain("--config", "pictures.yaml", "--set", setting, "--workers", 0, "-q", "--run-dir", "bad")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("bad").exists()


def test_without_pillow_what_to_install_is_said(call_partrain: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.features", None)
    result = call_partrain("--config", "pictures.yaml", "-q", "--run-dir", "bad")
    assert result.exit_code == 2
    assert "needs the package pillow: pip install 'partrain[images]'" in result.stderr
