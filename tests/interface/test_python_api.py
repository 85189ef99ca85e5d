from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import partrain
from partrain.errors import ConfigError, DataError, RunError
from tests.noise_data import noise_examples, write_idx_folder
from tests.program import ROOT, Result
from tests.small_run import SMALL_CONFIG, interrupt_after_a_logged_step, write_small_config

Array = NDArray[Any]
CONFIG: dict[str, Any] = {name: value for name, value in SMALL_CONFIG.items() if name != "data"} | {
    "logging": {"plots": False}
}
TRAIN, TEST = noise_examples(60), noise_examples(20, seed=1)


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> partrain.Run:
    folder = tmp_path_factory.mktemp("api") / "run"
    return partrain.train(CONFIG, data=TRAIN, test=TEST, workers=0, run_dir=folder, quiet=True)


def test_training_on_arrays_is_bit_for_bit_that_on_files_with_the_same_content(tmp_path: Path) -> None:
    write_idx_folder(tmp_path / "idx", TRAIN, TEST)
    digests = {}
    for workers in (0, 2):
        division = {"train_examples": 50, "validation_examples": 10}
        in_memory = CONFIG | {"data": {"name": "memory"} | division}
        run = partrain.train(in_memory, data=TRAIN, test=TEST, workers=workers, quiet=True)
        digests[f"arrays, {workers} workers"] = run.summary["parameters_sha256"]
        path = write_small_config(tmp_path, {"data": {"name": "idx", "path": str(tmp_path / "idx")} | division})
        run = partrain.train(path, workers=workers, quiet=True)
        digests[f"files, {workers} workers"] = run.summary["parameters_sha256"]
    assert len(set(digests.values())) == 1, digests


def test_metrics_summary_and_configuration_are_read_from_the_run(run: partrain.Run) -> None:
    assert [row["step"] for row in run.metrics if "train/loss" in row] == [3]
    assert run.summary["steps"] == 3
    assert run.config.data.name == "memory"
    assert run.config.data.validation_examples == 10
    assert repr(run) == f"partrain.open_run({str(run.path)!r})"


def test_evaluation_agrees_with_the_one_of_the_training(run: partrain.Run) -> None:
    report = run.evaluate(workers=0)
    assert report.accuracy == run.summary["test"]["accuracy"] == (report.labels == report.predictions).mean()
    assert report.loss == run.summary["test"]["loss"]
    np.testing.assert_array_equal(report.labels, TEST[1])
    assert report.confusion is not None
    assert (report.confusion.sum(), report.recall.shape, report.precision.shape) == (20, (10,), (10,))
    assert run.evaluate("validation", workers=0).labels.tolist() == TRAIN[1][50:].tolist()


def test_opened_run_evaluates_other_data_but_no_longer_has_its_own(run: partrain.Run) -> None:
    before = sorted(path.name for path in run.path.iterdir())
    opened = partrain.open_run(run.path, quiet=True)
    report = opened.evaluate(data=TEST, workers=0)
    np.testing.assert_array_equal(report.predictions, run.evaluate(workers=0).predictions)
    assert opened.evaluate(data=(TRAIN[0][:7], TRAIN[1][:7]), workers=0).labels.size == 7
    assert sorted(path.name for path in run.path.iterdir()) == before
    with pytest.raises(DataError, match="were arrays of a Python program"):
        opened.evaluate(workers=0)


def test_predictions_agree_with_the_evaluation(run: partrain.Run) -> None:
    report = run.evaluate(workers=0)
    np.testing.assert_array_equal(run.predict(TEST[0]), report.predictions)
    np.testing.assert_array_equal(run.predict(TEST[0][:, None].astype(np.float32)), report.predictions)
    probabilities = run.predict_proba(TEST[0])
    assert (probabilities.shape, probabilities.dtype) == ((20, 10), np.float64)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(20))
    assert run.predict(TEST[0][:0]).shape == (0,)


def test_class_names_are_kept_in_the_run(tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(10)]
    run = partrain.train(CONFIG, data=TRAIN, class_names=names, workers=0, run_dir=tmp_path / "r", quiet=True)
    assert partrain.open_run(tmp_path / "r").class_names == tuple(names) == run.evaluate(workers=0).class_names


def test_held_out_examples_do_not_depend_on_examples_appended_later(tmp_path: Path) -> None:
    images, labels = noise_examples(200)
    sets = []
    for num in (150, 200):
        run = partrain.train(CONFIG, data=(images[:num], labels[:num]), workers=0, quiet=True)
        sets.append(
            {split: run.evaluate(split, workers=0).labels.tolist() for split in ("train", "validation", "test")}
        )
        assert sum(map(len, sets[-1].values())) == num
    for split in ("validation", "test"):
        assert 5 < len(sets[0][split]) < 30
        assert sets[1][split][: len(sets[0][split])] == sets[0][split]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": 5}, "data: expected a pair of arrays"),
        (
            {"data": (TRAIN[0] / 3, TRAIN[1])},
            "the images of data: has dtype float64, expected uint8 or float32",
        ),
        (
            {"data": TRAIN, "test": (TEST[0][:3], TEST[1])},
            "images of test contains 3 images, but the labels of test contains 20",
        ),
        ({"data": (TRAIN[0], TRAIN[1][:5])}, "images of shape \\(60, 28, 28\\), and labels of shape \\(5,\\)"),
        ({"data": (TRAIN[0], TRAIN[1].astype(int) - 1)}, "has labels from -1 to 8"),
        ({"data": (TRAIN[0], TRAIN[1] + 3)}, "10 outputs are too few for the 13 classes"),
        ({"data": (TRAIN[0][:3], TRAIN[1][:3])}, "3 examples are too few"),
        ({"data": TRAIN, "test": (TEST[0][:, :9], TEST[1])}, "the train images have shape"),
        ({"data": TRAIN, "class_names": ["a", "a"]}, "the name 'a' occurs twice"),
        ({"data": TRAIN, "workers": -1}, "workers: -1 is not a whole number"),
        ({"data": TRAIN, "run_dir": "."}, "exists already"),
        ({"test": TEST}, "test and class_names require data"),
        ({}, "data: this key is needed"),
    ],
)
def test_invalid_argument_is_one_message(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, ConfigError, RunError), match=message):
        partrain.train(CONFIG, quiet=True, **arguments)
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("config", ["missing.yaml", {"network": 3}, 7])
def test_invalid_configuration_is_an_error(config: Any) -> None:
    with pytest.raises(ConfigError):
        partrain.train(config, data=TRAIN)


def test_images_that_do_not_fit_the_network_are_an_error(run: partrain.Run) -> None:
    for images, message in (
        (TEST[0][0], r"have shape \(28, 28\), expected \(N, 1, 28, 28\) or \(N, 28, 28\)"),
        (TEST[0] / 255, "Multiply it by 255"),
        (np.full((1, 28, 28), np.nan), "NaN"),
        (np.full((1, 28, 28), "x"), "expected numbers"),
    ):
        with pytest.raises(DataError, match=message):
            run.predict(images)
    with pytest.raises(DataError, match="the run was trained on"):
        run.evaluate(data=(TEST[0].astype(np.float32), TEST[1]))
    with pytest.raises(ConfigError, match="not both"):
        run.evaluate("test", data=TEST)
    with pytest.raises(ConfigError, match="none of train, validation, test"):
        run.evaluate("tset")


def test_command_line_says_that_the_data_was_in_memory(call_partrain: Any, run: partrain.Run) -> None:
    for arguments in (
        ("evaluate", run.path),
        ("--config", run.path / "config.yaml"),
        ("predict", run.path, "--index", 0),
    ):
        result: Result = call_partrain(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "were arrays of a Python program" in result.stderr


def test_ctrl_c_saves_the_run_and_raises_and_handlers_are_restored(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    config = CONFIG | {"training": CONFIG["training"] | {"epochs": 100_000}, "logging": {"every_steps": 1}}

    thread = threading.Thread(target=interrupt_after_a_logged_step, args=[tmp_path / "run"])
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="SIGINT; the run is saved at step"):
        partrain.train(config, data=TRAIN, workers=0, run_dir=tmp_path / "run", quiet=True)
    thread.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "interrupted"
    assert partrain.open_run(tmp_path / "run").predict(TEST[0]).shape == (20,)


PROGRAM = """
import numpy as np, partrain
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (60, 28, 28), np.uint8), np.arange(60) % 10
print("once")
run = partrain.train({config}, workers=2, data=(images, labels), quiet=True)
print(run.predict(images[:3]).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a script without a guard", "standard input"])
def test_workers_do_not_run_the_calling_program(tmp_path: Path, how: str) -> None:
    """A notebook, or a program from standard input, has no file that workers could import."""
    program = PROGRAM.replace("{config}", repr(CONFIG))
    (tmp_path / "script.py").write_text(program)
    command = [sys.executable, "script.py"] if how.startswith("a script") else [sys.executable, "-"]
    ended = subprocess.run(
        command,
        input=None if how.startswith("a script") else program,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "once\n(3,)\n"


def test_import_of_partrain_imports_no_dependency() -> None:
    program = (
        "import sys, partrain; before = set(sys.modules); dir(partrain); partrain.__version__; "
        "assert not {'numpy', 'pydantic', 'numba'} & set(sys.modules); partrain.train; assert 'numpy' in sys.modules; "
        "assert partrain.Run.__name__ == 'Run'"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=60)


def test_unknown_name_is_an_attribute_error() -> None:
    assert {"train", "open_run", "Run", "Report"} <= set(dir(partrain))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        partrain.trian  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_script_of_the_readme_works_as_it_is_written(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Python\n")[2]
    (tmp_path / "script.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    ended = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.split()[0]) > 0.9
    assert "['top', 'middle', 'bottom']" in ended.stdout
