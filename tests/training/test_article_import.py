from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from partrain.network.parameters import digest
from partrain.store import checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system import fault_injection
from tests.article_file import NAMES, article_logits, article_params
from tests.noise_data import noise_examples
from tests.program import PartrainProcess, Result, call_without_numba

Call = Callable[..., Result]
COST = [np.float64(2.25), np.float64(1.5), 0.75, np.float32(0.5), np.array([0.25])]


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_article(content: Any = None, protocol: int = 4) -> Path:
    path = Path("params.pkl")
    path.write_bytes(pickle.dumps([article_params(), COST] if content is None else content, protocol))
    return path


def refused(call: Call, *arguments: object) -> str:
    result = call("import-article", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists() or not os.listdir("runs")
    return result.stderr


@pytest.mark.parametrize("protocol", range(6))
def test_run_holds_parameters_metrics_and_normalisation_of_the_file(call_partrain: Call, protocol: int) -> None:
    result = call_partrain("import-article", write_article(protocol=protocol), "--run-dir", "runs/article")
    assert (result.exit_code, result.stdout) == (0, "runs/article\n"), result.stderr
    assert result.stderr == "runs/article: 105,634 parameters after 5 steps; the last cost is 0.2500\n"
    run = RunDirectory.open(Path("runs/article"))
    assert run.status() == "completed"
    saved = checkpoint.load(run.checkpoints.path_of(5))
    assert set(saved.tensors) == set(NAMES)
    for name, array in zip(NAMES, article_params(), strict=True):
        expected = array[:, 0] if name.endswith("bias") else array
        np.testing.assert_array_equal(saved.tensors[name], expected, strict=True)
    assert saved.metadata["normalisation"] == {"mean": [33.0], "std": [79.0]}
    record = run.read_run_json()
    assert "bits" not in record | saved.metadata, "partrain computed nothing"
    assert record["data"]["normalisation"] == {"mean": [33.0], "std": [79.0]}
    assert record["imported"]["file"] == str(Path("params.pkl").absolute())
    assert [(row["step"], row["train/loss"]) for row in read_metrics(run.metrics_path)] == [
        (1, 2.25),
        (2, 1.5),
        (3, 0.75),
        (4, 0.5),
        (5, 0.25),
    ]
    summary = run.read_summary()
    assert (summary["steps"], summary["examples"], summary["final"]) == (5, 160, {"train/loss": 0.25})
    ordered = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")
    ordered = (*ordered, "dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")
    assert summary["parameters_sha256"] == digest(np.concatenate([saved.tensors[name].ravel() for name in ordered]))


def test_run_goes_into_the_folder_runs_by_default(call_partrain: Call) -> None:
    result = call_partrain("import-article", write_article(), "-q")
    assert result.stderr == ""
    assert result.run.parent == Path("runs")
    assert result.run.name.endswith("-article")


def test_exported_run_says_of_raw_pixels_what_the_articles_code_says(call_partrain: Call) -> None:
    assert call_partrain("import-article", write_article(), "--run-dir", "runs/article").exit_code == 0
    assert call_partrain("export", "article", "--to", "article.onnx").exit_code == 0
    images, _ = noise_examples(6)
    expected = np.array([article_logits(article_params(), image) for image in images])
    logits, _ = onnxruntime.InferenceSession("article.onnx").run(None, {"pixels": images[:, None]})
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_normalisation_may_be_another(call_partrain: Call) -> None:
    arguments = ("--run-dir", "a-run", "--mean", "-0.5", "--std", "2")
    assert call_partrain("import-article", write_article(), *arguments).exit_code == 0
    record = json.loads(Path("a-run/run.json").read_text())
    assert record["data"]["normalisation"] == {"mean": [-0.5], "std": [2.0]}


def test_article_with_other_sizes_and_without_cost_is_taken(call_partrain: Call) -> None:
    shapes = ((4, 1, 3, 3), (6, 4, 3, 5), (20, 6 * 12 * 11), (10, 20), (4, 1), (6, 1), (20, 1), (10,))
    result = call_partrain("import-article", write_article(([np.ones(s) for s in shapes], [])), "--run-dir", "a-run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.endswith(" parameters after 0 steps\n")


def test_resume_of_an_imported_run_says_what_to_do(call_partrain: Call) -> None:
    assert call_partrain("import-article", write_article(), "--run-dir", "a-run").exit_code == 0
    result = call_partrain("resume", "a-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "was imported" in result.stderr
    assert "--init-from a-run" in result.stderr


def changed(place: int, value: Any) -> list[Any]:
    params: list[Any] = list(article_params())
    params[place] = value
    return [params, COST]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (article_params(), ["is not the article's file", "a list of 8", "[params, cost]"]),
        ([article_params()[:7], COST], ["is not the article's file"]),
        (np.zeros(2), ["an array of shape (2,)"]),
        ("text", ["a str"]),
        (changed(2, np.zeros((128, 700))), ["params[2] (w3)", "(128, 700)", "require (128, 800)"]),
        (changed(0, np.zeros((8, 5, 5))), ["params[0] (f1)", "(8, 5, 5)", "not 4 axes"]),
        (changed(1, np.zeros((8, 3, 5, 5))), ["params[1] (f2)", "require (8, 8, 5, 5)"]),
        (changed(1, np.zeros((8, 8, 40, 40))), ["does not fit images of 28 x 28", "larger than its input"]),
        (changed(3, np.zeros((5, 128))), ["params[7] (b4)"]),
        (changed(5, np.zeros((9, 1))), ["params[5] (b2)", "(9, 1)", "not (8, 1)"]),
        (changed(6, None), ["params[6] (b3)", "a NoneType", "not an array"]),
        (changed(4, np.full((8, 1), np.nan)), ["params[4] (b1)", "not finite"]),
        ([article_params(), [1.0, "x"]], ["cost[1]", "a str", "not a number"]),
        ([article_params(), [np.zeros(3)]], ["cost[0]", "shape (3,)"]),
        ([article_params(), "cost"], ["is not the article's file"]),
        ([article_params(), {"a": 1}], ["EMPTY_DICT", "refused"]),
        ([article_params(), [os.getcwd]], ["posix.getcwd", "refused"]),
    ],
)
def test_other_content_is_refused_and_leaves_no_run(call_partrain: Call, content: Any, fragments: list[str]) -> None:
    said = refused(call_partrain, write_article(content))
    assert said.count("\n") == 1
    assert all(fragment in said for fragment in fragments), said


def test_file_that_is_none_is_refused(call_partrain: Call) -> None:
    assert "No such file" in refused(call_partrain, "missing.pkl")
    assert "is a directory" in refused(call_partrain, ".")
    os.mkfifo("pipe")
    assert "neither a file" in refused(call_partrain, "pipe")
    Path("empty.pkl").write_bytes(b"")
    assert "not a pickle" in refused(call_partrain, "empty.pkl")
    Path("text.pkl").write_text("hello, world")
    assert "not a pickle" in refused(call_partrain, "text.pkl")


@pytest.mark.parametrize("options", [["--std", "0"], ["--std", "nan"], ["--mean", "inf"], ["--mean", "x"]])
def test_impossible_normalisation_is_refused(call_partrain: Call, options: list[str]) -> None:
    assert options[0] in refused(call_partrain, write_article(), *options)


def test_directory_that_exists_is_refused_and_stays(call_partrain: Call) -> None:
    Path("there").mkdir()
    assert "there: exists already" in refused(call_partrain, write_article(), "--run-dir", "there")
    assert Path("there").is_dir()


def test_failed_write_leaves_no_run(call_partrain: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CheckpointDirectory, "save", fail)
    assert "No space left on device" in refused(call_partrain, write_article())


@pytest.mark.parametrize("kill_at", [f"coordinator: before a file is replaced|{number}" for number in (1, 2, 4)])
def test_killed_import_leaves_no_half_run_and_can_be_repeated(
    call_partrain: Call, tmp_path: Path, kill_at: str
) -> None:
    command = ["import-article", str(write_article()), "--run-dir", "runs/article"]
    killed = PartrainProcess(command, tmp_path, {fault_injection.VARIABLE: kill_at}).wait()
    assert killed.exit_code == -signal.SIGKILL
    assert not Path("runs/article").exists()
    assert call_partrain(*command).exit_code == 0
    assert RunDirectory.open(Path("runs/article")).status() == "completed"
    assert os.listdir("runs") == ["article"]


def test_import_takes_over_the_directory_of_a_run_that_was_killed_before_it_began(call_partrain: Call) -> None:
    Path("article/checkpoints").mkdir(parents=True)
    Path("article/run.lock").touch()
    assert call_partrain("import-article", write_article(), "--run-dir", "article").exit_code == 0
    assert RunDirectory.open(Path("article")).status() == "completed"


def test_import_imports_no_numba() -> None:
    assert call_without_numba("import-article", write_article()) == 0
