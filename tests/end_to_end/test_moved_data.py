"""Data that has moved since the training began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import yaml

import partrain
from partrain.errors import DataError
from tests.image_tree import CLASS_NAMES, write_images
from tests.noise_data import noise_examples, write_idx_folder
from tests.program import Result
from tests.small_run import write_small_config
from tests.whole_runs import Runs, outcome

Call = Callable[..., Result]


@pytest.fixture
def moved(tmp_path: Path, noise_folder: Path, call_partrain: Call) -> tuple[Path, Path]:
    """A completed run, and the path to which its data has moved."""
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 10}
    config = write_small_config(tmp_path, {"data": data, "training.epochs": 1})
    run = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "run", "-q").run
    noise_folder.rename(tmp_path / "there")
    return run, tmp_path / "there"


def test_run_resumes_with_the_bits_of_the_undisturbed_run_wherever_its_data_is(
    runs: Runs, noise_folder: Path, tmp_path: Path
) -> None:
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 10}
    undisturbed = runs.train({"data": data})
    killed = runs.train({"data": data}, name="killed", kill_at="coordinator: before a step|5")
    identity = json.loads((killed / "run.json").read_text())["identity"]
    noise_folder.rename(tmp_path / "there")
    message = runs.resume(killed).refusal
    assert f"{noise_folder}: the run's data is not there. Give its path with --set data.path=PATH." in message
    resumed = runs.resume(killed, "--set", f"data.path={tmp_path / 'there'}")
    assert resumed.exit_code == 0, resumed.stderr
    assert outcome(killed) == outcome(undisturbed)
    record = json.loads((killed / "run.json").read_text())
    assert record["identity"] == identity
    assert record["lineage"][-1]["data_path"] == str(tmp_path / "there")
    # The new path is kept.
    assert runs.resume(killed, "--epochs", 3).exit_code == 0
    assert yaml.safe_load((killed / "config.yaml").read_text())["data"]["path"] == str(tmp_path / "there")


def test_other_data_at_the_new_path_is_refused(moved: tuple[Path, Path], call_partrain: Call, tmp_path: Path) -> None:
    run, _ = moved
    other = write_idx_folder(tmp_path / "other", noise_examples(60, seed=3), noise_examples(20, seed=1))
    config = (run / "config.yaml").read_bytes()
    message = call_partrain("resume", run, "--epochs", 2, "--set", f"data.path={other}").refusal
    assert "the data changed after the run started" in message
    assert (run / "config.yaml").read_bytes() == config


def test_images_of_suffixes_that_early_versions_did_not_read_are_named(call_partrain: Call, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 60)
    config = write_small_config(
        tmp_path, {"data": {"name": "folder", "path": str(images), "size": [12, 12], "channels": 1}}
    )
    run = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "run", "-q").run
    hint = "Early versions of partrain did not use .gif, .jfif, .tif and .tiff files"
    (extra := images / CLASS_NAMES[0] / "other.png").write_bytes(next(images.glob("*/*.png")).read_bytes())
    assert hint not in call_partrain("resume", run, "--epochs", 2).refusal
    extra.unlink()
    PIL.Image.new("L", (12, 12)).save(images / CLASS_NAMES[0] / "scan.TIF")
    message = call_partrain("resume", run, "--epochs", 2).refusal
    assert "the data changed after the run started" in message
    assert f"{hint}, of which 1 are used now" in message


def test_path_edited_in_the_configuration_is_used(moved: tuple[Path, Path], call_partrain: Call) -> None:
    run, there = moved
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["path"] = str(there)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert call_partrain("resume", run, "--epochs", 2, "--workers", 0, "-q").exit_code == 0
    assert call_partrain("evaluate", run, "--workers", 0, "-q").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [("evaluate", "--workers", 0), ("predict", "--index", 3), ("examples",)])
def test_commands_that_need_the_data_take_its_path(
    moved: tuple[Path, Path], call_partrain: Call, tmp_path: Path, command: tuple[object, ...]
) -> None:
    run, there = moved
    name, *options = command
    message = call_partrain(name, run, *options).refusal
    assert f"the data of {run} is not there. Give its path with --data PATH." in message
    result = call_partrain(name, run, *options, "--data", there, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    other = write_idx_folder(tmp_path / "other", noise_examples(60, seed=3), noise_examples(20, seed=1))
    warned = call_partrain(name, run, *options, "--data", other, "--json", "-q")
    assert "the data changed after the training" in warned.stderr


def test_path_for_a_data_set_that_has_none_is_one_message(call_partrain: Call, tmp_path: Path) -> None:
    run = call_partrain(
        "--config", write_small_config(tmp_path), "--workers", 0, "--run-dir", tmp_path / "run", "-q"
    ).run
    message = call_partrain("evaluate", run, "--data", tmp_path).refusal
    assert "the run was trained on synthetic-digits, whose examples are where PARTRAIN_DATA_DIR says" in message
    message = call_partrain("predict", run, "x.png", "--data", tmp_path).refusal
    assert "--data goes with --index" in message


def test_evaluation_from_python_takes_the_path(moved: tuple[Path, Path], noise_folder: Path) -> None:
    path, there = moved
    run = partrain.open_run(path, quiet=True)
    with pytest.raises(DataError, match="is not there"):
        run.evaluate(workers=0)
    report = run.evaluate("validation", data=there, workers=0)
    shutil.copytree(there, noise_folder)
    assert report.accuracy == run.evaluate("validation", workers=0).accuracy


def test_resuming_from_python_takes_the_path(moved: tuple[Path, Path]) -> None:
    path, there = moved
    run = partrain.open_run(path, quiet=True).resume(epochs=2, changes={"data.path": str(there)}, workers=0)
    assert run.config.data.path == str(there)
    assert run.summary["epochs"] == 2
