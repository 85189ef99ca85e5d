"""`partrain init`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from partrain.config.reader import read_config
from tests.image_tree import write_images
from tests.program import Result


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_configuration_for_mnist_is_written_and_not_replaced(
    call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    assert call_partrain("init") == Result(0, "mnist.yaml\n", "look at it, then train: partrain --config mnist.yaml\n")
    assert read_config("mnist.yaml").data.name == "mnist"
    (tmp_path / "mnist.yaml").write_text("mine")
    result = call_partrain("init", "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "mnist.yaml: exists already" in result.stderr
    assert (tmp_path / "mnist.yaml").read_text() == "mine"
    assert call_partrain("init", "-q", "other.yaml") == Result(0, "other.yaml\n", "")


def test_directory_of_images_is_inspected_and_the_configuration_trains(
    run_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    write_images(tmp_path / "my pictures", 120, num_broken=3)
    result = run_partrain("init", "--data", "my pictures")
    assert (result.exit_code, result.stdout) == (0, "my-pictures.yaml\n")
    text = (tmp_path / "my-pictures.yaml").read_text(encoding="utf-8")
    assert "10 classes, of " in text
    assert "cannot be read: " in text
    config = read_config("my-pictures.yaml")
    assert (config.data.size, config.data.channels, config.data.on_broken) == ((28, 28), 1, "skip")
    words = ["--workers", "0", "-q", "--set", "training.max_steps=2", "--run-dir", "run"]
    trained = run_partrain("--config", "my-pictures.yaml", *words)
    assert (trained.exit_code, trained.stdout) == (0, "run\n"), trained.stderr


def write_plain_images(folder: Path, size: tuple[int, int], *, colour: bool, orientation: int = 1) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            grey = rng.integers(0, 256, (*size, 1), dtype=np.uint8)
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8) if colour else grey.repeat(3, axis=2)
            exif = PIL.Image.Exif()
            exif[274] = orientation
            PIL.Image.fromarray(pixels).save(folder / name / f"{index}.png", exif=exif)


@pytest.mark.parametrize(
    ("size", "colour", "orientation", "proposed"),
    [
        ((28, 28), False, 1, [28, 28, 1]),
        ((17, 30), True, 1, [17, 30, 3]),
        ((17, 30), True, 6, [30, 17, 3]),
        ((90, 200), True, 1, [28, 64, 3]),
        ((3, 300), False, 1, [8, 64, 1]),
    ],
)
def test_size_and_channels_are_those_of_the_images(
    call_partrain: Callable[..., Result],
    tmp_path: Path,
    size: tuple[int, int],
    colour: bool,
    orientation: int,
    proposed: list[int],
) -> None:
    write_plain_images(tmp_path / "pictures", size, colour=colour, orientation=orientation)
    result = call_partrain("init", "--data", "pictures", "my x.yaml")
    assert result.stderr == "look at it, then train: partrain --config 'my x.yaml'\n"
    assert "#   2 classes, of 20 images each: a, b\n" in Path("my x.yaml").read_text(encoding="utf-8")
    data = read_config("my x.yaml").data
    assert data.size is not None
    assert [*data.size, data.channels] == proposed
    assert data.path == str(tmp_path / "pictures")


def test_mistakes_are_reported(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "train_images.npy", np.zeros(3))
    for word in ("a", "b"):
        (tmp_path / "broken" / word).mkdir(parents=True)
        for index in range(20):
            (tmp_path / "broken" / word / f"{index}.png").write_text("x")
    for words, said in (
        (["--data", "missing"], "is not a directory"),
        (["--data", "empty"], "empty"),
        (["--data", "arrays"], "holds arrays, not images"),
        (["--data", "broken"], "cannot be read"),
        (["empty"], "is a directory"),
        (["no/where.yaml"], "cannot be written"),
    ):
        result = call_partrain("init", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    monkeypatch.setitem(sys.modules, "PIL.features", None)
    result = call_partrain("init", "--data", "broken")
    assert result.exit_code == 2
    assert "partrain[images]" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["arrays", "broken", "empty"]
