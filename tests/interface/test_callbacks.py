"""Callbacks of `partrain.train` and `Run.resume`: they receive metrics, can stop the training, and may fail."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import partrain
from partrain.errors import ConfigError
from tests.noise_data import noise_examples
from tests.small_run import SMALL_CONFIG

TRAIN, TEST = noise_examples(60), noise_examples(20, seed=1)
CONFIG: dict[str, Any] = {name: value for name, value in SMALL_CONFIG.items() if name != "data"} | {
    "training": SMALL_CONFIG["training"] | {"epochs": 4},
    "logging": {"plots": False, "every_steps": 2},
}


def train(folder: Path, **options: Any) -> partrain.Run:
    return partrain.train(CONFIG, data=TRAIN, test=TEST, run_dir=folder, quiet=True, **{"workers": 0} | options)


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the parameters that are trained without callbacks."""
    run = train(tmp_path_factory.mktemp("alone") / "run")
    return str(run.summary["parameters_sha256"])


def test_callbacks_receive_the_lines_of_the_metrics_and_change_no_bit(tmp_path: Path, digest: str) -> None:
    rows: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    run = train(tmp_path / "run", on_step=rows.append, on_evaluation=evaluations.append)
    logged = run.metrics
    assert rows == [row for row in logged if "train/loss" in row]
    assert evaluations == [row for row in logged if "validation/loss" in row]
    assert len(rows) > len(evaluations) == 4
    assert run.status == "completed"
    assert run.summary["parameters_sha256"] == digest


def test_what_a_callback_does_with_its_metrics_changes_nothing(tmp_path: Path, digest: str) -> None:
    run = train(tmp_path / "run", on_step=dict.clear, on_evaluation=dict.clear)
    assert all("step" in row for row in run.metrics)
    assert run.summary["parameters_sha256"] == digest


@pytest.mark.parametrize("name", ["on_step", "on_evaluation"])
def test_a_callback_that_returns_true_stops_the_run_which_is_saved_and_can_be_resumed(
    tmp_path: Path, digest: str, name: str
) -> None:
    run = train(tmp_path / "run", workers=2, **{name: lambda row: np.bool_(row["step"] >= 4)})
    stopped_at = run.metrics[-1]["step"]
    assert 4 <= stopped_at < 8
    record = json.loads((run.path / "run.json").read_text())
    assert (run.status, record["cause"]) == ("interrupted", f"{name} returned True")
    assert run.summary["steps"] == stopped_at
    assert run.predict(TEST[0]).shape == (20,)
    later: list[int] = []
    run = run.resume(workers=0, on_step=lambda row: later.append(row["step"]))
    assert min(later) > stopped_at
    assert (run.status, run.summary["parameters_sha256"]) == ("completed", digest)
    assert "cause" not in json.loads((run.path / "run.json").read_text())


def test_a_resumed_run_can_be_stopped_again(tmp_path: Path) -> None:
    run = train(tmp_path / "run", on_step=lambda row: True)
    run = run.resume(workers=0, on_evaluation=lambda row: True)
    assert run.status == "interrupted"


@pytest.mark.parametrize("answer", [None, False, 1, "yes", np.ones(2), {"stop": True}])
def test_only_true_stops(tmp_path: Path, answer: object) -> None:
    assert train(tmp_path / "run", on_step=lambda row: answer).status == "completed"


def test_true_at_the_last_step_changes_nothing(tmp_path: Path) -> None:
    run = train(tmp_path / "run", on_step=lambda row: row["epoch"] >= 4)
    assert run.status == "completed"
    assert run.summary["test"]


class BoomError(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_exception_of_a_callback_reaches_the_caller_unchanged_and_the_run_is_saved(
    tmp_path: Path, digest: str, workers: int
) -> None:
    boom = BoomError("at step 4")

    def fail(row: dict[str, Any]) -> None:
        if row["step"] == 4:
            raise boom

    with pytest.raises(BoomError) as raised:
        train(tmp_path / "run", workers=workers, on_step=fail)
    assert raised.value is boom
    assert (boom.args, boom.__cause__, boom.__context__) == (("at step 4",), None, None)
    run = partrain.open_run(tmp_path / "run", quiet=True)
    record = json.loads((run.path / "run.json").read_text())
    assert (run.status, record["cause"], run.summary["steps"]) == ("failed", "at step 4", 4)
    assert run.resume(workers=0, data=TRAIN, test=TEST).summary["parameters_sha256"] == digest


def test_keyboard_interrupt_of_a_callback_interrupts_the_run(tmp_path: Path) -> None:
    def interrupt(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", on_evaluation=interrupt)
    assert partrain.open_run(tmp_path / "run").status == "interrupted"


def test_ctrl_c_during_a_callback_saves_the_step_and_raises(tmp_path: Path, digest: str) -> None:
    def press_ctrl_c(row: dict[str, Any]) -> None:
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="SIGINT; the run is saved at step 4"):
        train(tmp_path / "run", workers=2, on_step=press_ctrl_c)
    run = partrain.open_run(tmp_path / "run", quiet=True)
    assert run.status == "interrupted"
    assert run.resume(workers=0, data=TRAIN, test=TEST).summary["parameters_sha256"] == digest


def test_an_evaluation_inside_a_callback_reads_the_run(tmp_path: Path) -> None:
    accuracies: list[float] = []

    def evaluate(row: dict[str, Any]) -> None:
        run = partrain.open_run(tmp_path / "run", quiet=True)
        accuracies.append(run.evaluate(data=TEST, workers=0).accuracy)

    run = train(tmp_path / "run", on_evaluation=evaluate)
    assert len(accuracies) == 4
    assert run.status == "completed"


@pytest.mark.parametrize("name", ["on_step", "on_evaluation"])
def test_what_is_no_function_is_refused_before_a_run_is_created(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: 5 is not a function"):
        train(tmp_path / "run", **{name: 5})
    assert not (tmp_path / "run").exists()
