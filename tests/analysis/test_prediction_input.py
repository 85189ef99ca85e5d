"""The images that `predict` is given: several at once, some of them unusable, directories, and unlike the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import partrain
from partrain.errors import ConfigError, DataError
from tests.digit_drawings import STYLES, draw
from tests.noise_data import noise_examples
from tests.program import ROOT, Result
from tests.small_run import train_small

Call = Callable[..., Result]
MNIST_RUN = ROOT / "runs/example-mnist"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run; it is only read."""
    return train_small(tmp_path_factory.mktemp("trained"), {"training.epochs": 1})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory with images at several depths, and other files."""
    for index, name in enumerate(("2.png", "1.tif", "deep/3.GIF", ".hidden.png", ".git/4.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise_examples(5)[0][index]).save(path)
    np.save(tmp_path / "images/array.npy", noise_examples(1)[0][0])
    (tmp_path / "images/notes.txt").write_text("x")
    return tmp_path / "images"


def names_in(result: Result) -> list[str]:
    return [entry["image"] for entry in json.loads(result.stdout)]


def test_broken_image_is_named_and_the_others_are_classified(call_partrain: Call, trained: Path, images: Path) -> None:
    (images / "bad.png").write_text("no picture")
    files = [images / "2.png", images / "bad.png", images / "missing.png", images / "1.tif"]
    result = call_partrain("predict", trained, *files)
    assert result.exit_code == 2
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [str(files[0]), str(files[3])]
    assert f"{images / 'bad.png'}: is not a PNG" in result.stderr
    assert f"{images / 'missing.png'}: cannot be read: No such file" in result.stderr
    result = call_partrain("predict", trained, *files, "--json")
    assert (result.exit_code, names_in(result)) == (2, [str(files[0]), str(files[3])])


def test_only_broken_images_print_nothing(call_partrain: Call, trained: Path, images: Path) -> None:
    result = call_partrain("predict", trained, images / "notes.txt", "--json")
    assert (result.exit_code, result.stdout) == (2, "")


def test_directory_stands_for_the_images_in_it(call_partrain: Call, trained: Path, images: Path) -> None:
    result = call_partrain("predict", trained, images, images / "2.png", "--json")
    expected = ["1.tif", "2.png", "array.npy", "deep/3.GIF", "2.png"]
    assert (result.exit_code, names_in(result)) == (0, [str(images / name) for name in expected])
    assert f"{images}: 1 file is not used: 1 .txt" in result.stderr


def test_directory_without_images_is_an_error_and_the_others_are_classified(
    call_partrain: Call, trained: Path, images: Path
) -> None:
    (images / "empty").mkdir()
    result = call_partrain("predict", trained, images / "empty", images / "deep", "--json")
    assert (result.exit_code, names_in(result)) == (2, [str(images / "deep/3.GIF")])
    assert f"{images / 'empty'}: contains no image" in result.stderr


# ---- brightness and contrast


def save(path: Path, style: str, digit: int = 3) -> Path:
    Image.fromarray(draw(digit, STYLES[style])).save(path)
    return path


def warning(call_partrain: Call, *arguments: object) -> str:
    result = call_partrain("predict", MNIST_RUN, *arguments, "-q")
    assert result.exit_code == 0
    return result.stderr


@pytest.mark.parametrize("style", ["drawn in a paint program", "of 28 x 28 pixels"])
def test_ink_on_paper_is_reported_and_inverting_it_suggested(call_partrain: Call, tmp_path: Path, style: str) -> None:
    path = save(tmp_path / "x.png", style)
    text = warning(call_partrain, path)
    assert text.startswith(f"warning: {path}: brightness or contrast is far from the training images'")
    assert "With --invert they would be close" in text
    assert "--prepare mnist" in text
    assert warning(call_partrain, path, "--invert") == ""
    assert warning(call_partrain, path, "--prepare", "mnist") == ""


def test_light_on_dark_is_not_reported_unless_it_is_inverted(call_partrain: Call, tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", "white on black")
    assert warning(call_partrain, path) == ""
    assert "Without --invert they would be close" in warning(call_partrain, path, "--invert")


def test_dim_photograph_is_reported_and_inverting_it_not_suggested(call_partrain: Call, tmp_path: Path) -> None:
    text = warning(call_partrain, save(tmp_path / "x.png", "dim photograph"))
    assert "is far from the training images'" in text
    assert "--invert" not in text
    assert "Pictures of digits can be prepared with --prepare mnist" in text


def test_many_images_are_counted(call_partrain: Call, tmp_path: Path) -> None:
    for digit in range(9):
        save(tmp_path / f"{digit}.png", "of 28 x 28 pixels", digit)
    assert f"{tmp_path / '4.png'} and 4 more: brightness" in warning(call_partrain, tmp_path)


# ---- Python


@pytest.mark.slow
def test_python_prepares_arrays_and_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = partrain.open_run(MNIST_RUN, quiet=True)
    pictures = [draw(digit, STYLES["ballpoint on grey paper"]) for digit in (4, 7)]
    greys = [np.array(Image.fromarray(picture).convert("L")) for picture in pictures]
    paths = [save(tmp_path / f"{digit}.png", "ballpoint on grey paper", digit) for digit in (4, 7)]
    expected = run.predict_proba(pictures, prepare="mnist")
    assert expected.argmax(axis=1).tolist() == [4, 7]
    for given in (greys, [picture.transpose(2, 0, 1) for picture in pictures], paths, list(map(str, paths))):
        np.testing.assert_allclose(run.predict_proba(given, prepare="mnist"), expected, atol=0.02)
    assert run.predict(str(paths[0]), prepare="mnist").tolist() == [4]
    assert capfd.readouterr().err == ""


def test_python_inverts_and_warns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = partrain.open_run(MNIST_RUN, quiet=True)
    path = save(tmp_path / "x.png", "drawn in a paint program", 4)
    assert run.predict([path], invert=True).tolist() == [4]
    assert capfd.readouterr().err == ""
    paper = np.array(Image.open(path).convert("L").resize((28, 28)))[np.newaxis]
    np.testing.assert_array_equal(run.predict_proba(paper, invert=True), run.predict_proba(255 - paper))
    assert capfd.readouterr().err == ""
    run.predict(paper)
    assert "images[0]: brightness or contrast is far from" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("images", "options", "fragment"),
    [
        ([], {"prepare": "svhn"}, "prepare: expected None or mnist"),
        ([], {"prepare": "mnist", "invert": True}, "without invert"),
        (
            [np.zeros((4, 4, 2), np.uint8)],
            {"prepare": "mnist"},
            r"images\[0\]: has shape \(4, 4, 2\), expected one pic",
        ),
        ([np.zeros((9, 9), np.uint8)], {"prepare": "mnist"}, r"images\[0\]: no digit was found"),
        (["missing.png"], {}, "missing.png: cannot be read"),
    ],
)
def test_python_refuses_what_cannot_be_prepared(images: Any, options: dict[str, Any], fragment: str) -> None:
    with pytest.raises((ConfigError, DataError), match=fragment):
        partrain.open_run(MNIST_RUN, quiet=True).predict(images, **options)
