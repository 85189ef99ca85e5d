from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partrain.analysis.plots import run_plots
from partrain.analysis.prediction import Classifier
from partrain.analysis.trained_run import load_trained_run
from partrain.config.reader import read_config
from partrain.data.loading import load_dataset
from tests.noise_data import noise_examples
from tests.program import Result
from tests.small_run import train_small

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots have their own tests, and drawing them takes seconds."""
    monkeypatch.setattr(run_plots, "write_plots", lambda *given: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run; it is only read."""
    return train_small(tmp_path_factory.mktemp("trained"), {"training.epochs": 3})


def predict(call: Call, *arguments: object) -> list[dict[str, Any]]:
    result = call("predict", *arguments, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    outcomes: list[dict[str, Any]] = json.loads(result.stdout)
    return outcomes


def test_classifier_agrees_bit_for_bit_with_the_evaluation(call_partrain: Call, trained: Path) -> None:
    report = json.loads(call_partrain("evaluate", trained, "--workers", 0, "--json", "-q").stdout)
    run = load_trained_run(trained, "last", pytest.fail)
    config = read_config(trained / "config.yaml")
    dataset = load_dataset(config.data, config.seed, say=lambda text: None, warn=pytest.fail)
    probabilities = Classifier(run, pytest.fail, pytest.fail).probabilities(dataset.test.images)
    assert probabilities.argmax(axis=1).tolist() == report["predictions"]
    assert probabilities.sum(axis=1) == pytest.approx(1)
    for example in report["least_certain"]:
        assert probabilities[example["index"]].max() == example["probability"]


def test_example_of_the_data_set_is_the_one_that_the_evaluation_names(call_partrain: Call, trained: Path) -> None:
    for split in ("test", "validation", "train"):
        arguments = ("--workers", 0, "--split", split, "--json", "-q")
        report = json.loads(call_partrain("evaluate", trained, *arguments).stdout)
        example = report["least_certain"][0]
        (outcome,) = predict(call_partrain, trained, "--index", example["index"], "--split", split)
        assert {key: outcome[key] for key in example} == example
        assert (outcome["split"], outcome["truth"]) == (split, str(example["label"]))


def test_picture_array_and_example_are_the_same_image(call_partrain: Call, trained: Path, tmp_path: Path) -> None:
    config = read_config(trained / "config.yaml")
    dataset = load_dataset(config.data, config.seed, say=lambda text: None, warn=pytest.fail)
    image = dataset.test.images[17, 0]
    Image.fromarray(image).save(tmp_path / "light.png")
    Image.fromarray(255 - image).save(tmp_path / "dark.png")
    np.save(tmp_path / "light.npy", image)
    (example,) = predict(call_partrain, trained, "--index", 17)
    picture, array = predict(call_partrain, trained, tmp_path / "light.png", tmp_path / "light.npy")
    (inverted,) = predict(call_partrain, trained, "--invert", tmp_path / "dark.png")
    for outcome in (picture, array, inverted):
        assert outcome["probabilities"] == example["probabilities"]
    assert [Path(outcome["image"]).name for outcome in (picture, array)] == ["light.png", "light.npy"]


def test_outcome_is_the_most_probable_class_and_the_next_two(call_partrain: Call, trained: Path) -> None:
    (outcome,) = predict(call_partrain, trained, "--index", 3)
    best = np.argsort(-np.array(outcome["probabilities"]))[:3].tolist()
    assert [entry["prediction"] for entry in (outcome, *outcome["next"])] == best
    assert [entry["class"] for entry in (outcome, *outcome["next"])] == [str(k) for k in best]
    assert outcome["probability"] == outcome["probabilities"][best[0]]


def test_each_image_is_a_line_wherever_it_appears_on_the_command_line(
    call_partrain: Call, trained: Path, tmp_path: Path
) -> None:
    for k, image in enumerate(noise_examples(3)[0]):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    result = call_partrain("predict", trained, *paths)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in paths]
    number = r"\d \(\d+\.\d\d%\)"
    for line in lines:
        assert re.fullmatch(rf".*: {number}, then {number}, {number}", line)
    mixed = call_partrain("predict", "-q", trained, paths[0], "--checkpoint", "last", paths[1], "-q", paths[2])
    assert mixed.stdout == result.stdout


def test_example_is_a_line_with_the_truth(call_partrain: Call, trained: Path) -> None:
    result = call_partrain("predict", trained, "--index", 3, "-q")
    assert result.stdout.startswith("test[3]: ")
    assert "; true class: " in result.stdout


def test_example_can_be_inverted(call_partrain: Call, trained: Path) -> None:
    (plain,) = predict(call_partrain, trained, "--index", 3)
    (inverted,) = predict(call_partrain, trained, "--index", 3, "--invert")
    assert plain["probabilities"] != inverted["probabilities"]


def test_network_of_floats_with_two_classes_and_two_channels(
    call_partrain: Call, small_config: Callable[..., Path], tmp_path: Path
) -> None:
    rng = np.random.Generator(np.random.Philox(key=0))
    arrays = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays[f"{split}_images"] = rng.standard_normal((n, 2, 6, 5)).astype(np.float32)
        arrays[f"{split}_labels"] = np.arange(n) % 2
    np.savez(tmp_path / "data.npz", **arrays)
    changes = {
        "data": {"name": "arrays", "path": str(tmp_path / "data.npz")},
        "network": ["flatten", {"dense": {"units": 2}}],
        "training.kernels": "loops",
        "training.dtype": "float64",
    }
    config = small_config(changes)
    assert call_partrain("--config", config, "--workers", 0, "-q", "--run-dir", tmp_path / "floats").exit_code == 0
    np.save(tmp_path / "x.npy", arrays["test_images"][4])
    (of_file,) = predict(call_partrain, tmp_path / "floats", tmp_path / "x.npy")
    (of_index,) = predict(call_partrain, tmp_path / "floats", "--index", 4)
    assert of_file["probabilities"] == of_index["probabilities"]
    assert len(of_file["next"]) == 1


# ---- mistakes


def refuse(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ((), "give image files, or --index I"),
        (("x.png", "--index", "3"), "give image files, or --index I"),
        (("x.png", "--split", "test"), "--split goes with --index"),
        (("--index", "-1"), "not a whole number"),
        (("--index", "240"), "--index 240: the test split has the examples 0 to 239"),
        (("--index", "0", "--split", "all"), "invalid choice"),
        (("x.png", "--nonsense", "y.png"), "unrecognized arguments: --nonsense"),
        (("x.png", "--prepare", "mnist", "--invert"), "finds out itself what is light and dark"),
        (("--index", "0", "--prepare", "mnist"), "--prepare goes with image files"),
        (("missing.png",), "missing.png: cannot be read: No such file"),
    ],
)
def test_command_line_that_asks_for_no_image(
    call_partrain: Call, trained: Path, arguments: tuple[str, ...], fragment: str
) -> None:
    assert fragment in refuse(call_partrain("predict", trained, "-q", *arguments))
