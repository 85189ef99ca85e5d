"""Evaluations of a directory of images name the files of the examples that they list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from partrain.analysis.plots import run_plots
from partrain.data.split_name import SplitName
from tests.program import Result
from tests.small_run import train_small

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots have their own tests, and drawing them takes seconds."""
    monkeypatch.setattr(run_plots, "write_plots", lambda *given: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run on images, each of one grey that its file tells; a broken one is left out."""
    folder = tmp_path_factory.mktemp("files")
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        for grey in range(first, first + 20):
            path = folder / "images" / split / ("even" if grey % 2 == 0 else "odd é") / f"{grey}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.full((12, 12), grey, np.uint8)).save(path)
    (folder / "images/train/even/1 broken.png").write_text("no image")
    data = {"name": "folder", "path": str(folder / "images"), "size": 12, "channels": 1, "on_broken": "skip"}
    train_small(folder, {"data": data, "training.epochs": 1})
    return folder


def run_in(folder: Path) -> Path:
    return next(path.parent for path in folder.rglob("summary.json"))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_lists_name_the_file_of_each_example(call_partrain: Call, folder: Path, split: str) -> None:
    arguments = ("--split", split, "--json", "-q")
    reports = [
        json.loads(call_partrain("evaluate", run_in(folder), "--workers", 0, *arguments).stdout),
        json.loads(call_partrain("examples", run_in(folder), *arguments).stdout),
    ]
    directory = {"validation": "val"}.get(split, split)
    for key in ("least_certain", "most_confidently_wrong", "largest_loss", "largest_gradient"):
        for example in next(report for report in reports if key in report)[key]:
            path = folder / "images" / example["file"]
            assert path.relative_to(folder / "images").parts[0] == directory
            assert example["label"] == ("odd" in path.parent.name)
    example = reports[0]["least_certain"][0]
    (prediction,) = json.loads(call_partrain("predict", run_in(folder), "--index", example["index"], *arguments).stdout)
    assert {key: prediction[key] for key in example} == example


def test_text_names_files_in_place_of_indices(call_partrain: Call, folder: Path) -> None:
    for command in (("evaluate", "--workers", 0), ("examples",)):
        text = call_partrain(command[0], run_in(folder), *command[1:], "--split", "test", "-q").stdout
        assert "test/odd é/6" in text
        assert "index" not in text
    text = call_partrain("predict", run_in(folder), "--index", 0, "-q").stdout
    assert text.startswith("test[0] (test/even/60.png): ")


def test_report_at_the_end_of_training_names_files(folder: Path) -> None:
    report = json.loads((run_in(folder) / f"evaluation-{SplitName.TEST}.json").read_text())
    assert all(example["file"].startswith("test/") for example in report["least_certain"])


def test_examples_that_are_no_files_have_indices(call_partrain: Call, tmp_path: Path) -> None:
    run = train_small(tmp_path, {"training.epochs": 1})
    report = json.loads(call_partrain("evaluate", run, "--workers", 0, "--json", "-q").stdout)
    assert all("file" not in example for example in report["least_certain"])
    assert "index" in call_partrain("examples", run, "-q").stdout
