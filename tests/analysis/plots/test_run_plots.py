from __future__ import annotations

import builtins
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from partrain.training import training_run
from tests.program import Result
from tests.small_run import train_small

Call = Callable[..., Result]
OF_TEST = {"cost", "accuracy", "filters", "recall-test", "confusion-test", "misclassified-test"}


def names_in(run: Path) -> set[str]:
    return {path.stem for path in (run / "plots").iterdir() if path.suffix == ".png"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run that drew its plots; tests copy its directory."""
    return train_small(
        tmp_path_factory.mktemp("trained"), {"training.epochs": 2, "logging": {"every_steps": 1, "plots": True}}
    )


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run for one test."""
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    return path


def evaluate(call: Call, run: Path, *arguments: object) -> Result:
    return call("evaluate", run, "--workers", 0, *arguments)


def test_training_writes_plots_and_evaluation(trained: Path) -> None:
    assert names_in(trained) == OF_TEST
    assert (trained / "evaluation-test.json").is_file()
    for path in (trained / "plots").iterdir():
        with Image.open(path) as picture:
            assert 500 < picture.width < 1300
            assert path.stat().st_size < 300_000


def test_evaluation_draws_the_same_plots_again_and_those_of_another_split(call_partrain: Call, run: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run / "plots").iterdir()}
    report = (run / "evaluation-test.json").read_bytes()
    shutil.rmtree(run / "plots")
    result = evaluate(call_partrain, run)
    assert result.exit_code == 0
    assert f"6 plots: {run / 'plots'}" in result.stderr
    assert {path.name: path.read_bytes() for path in (run / "plots").iterdir()} == before
    assert (run / "evaluation-test.json").read_bytes() == report
    assert evaluate(call_partrain, run, "--split", "validation", "-q").stderr == ""
    assert names_in(run) == OF_TEST | {"recall-validation", "confusion-validation", "misclassified-validation"}


def test_network_without_convolutions_has_no_filters(
    call_partrain: Call, small_config: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {"network": ["flatten", {"dense": {"units": 10}}], "logging": {"plots": True}}
    config = small_config(changes)
    result = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "dense")
    assert result.exit_code == 0, result.stderr
    assert names_in(tmp_path / "dense") == OF_TEST - {"filters"}
    assert "5 plots: " in result.stderr


def without_import(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    original = builtins.__import__

    def refusing(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise error
        return original(name, *rest)

    for name in [
        name
        for name in sys.modules
        if name.startswith("partrain.analysis.plots.") and "run_plots" not in name and "plot_files" not in name
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("partrain.analysis.plots.canvas", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)


def test_without_matplotlib_a_message_says_how_to_install_it_and_all_else_works(
    call_partrain: Call, run: Path, small_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run / "plots")
    without_import(monkeypatch, ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"))
    line = "no plots are drawn because matplotlib is not installed: pip install 'partrain[plots]'"
    evaluated = evaluate(call_partrain, run)
    assert evaluated.exit_code == 0
    assert evaluated.stdout.startswith("240 examples: accuracy ")
    assert evaluated.stderr.splitlines().count(line) == 1
    assert not (run / "plots").exists()
    config = small_config({"logging": {"plots": True}})
    trained = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "new")
    assert trained.exit_code == 0
    assert trained.stderr.splitlines().count(line) == 1


def test_matplotlib_that_cannot_be_imported_is_a_warning(
    call_partrain: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_import(monkeypatch, ImportError("a library is missing"))
    result = evaluate(call_partrain, run, "-q")
    assert result.exit_code == 0
    assert result.stderr == "warning: no plots are drawn because matplotlib cannot be imported: a library is missing\n"


def test_setting_that_matplotlib_rejects_is_a_warning(run_partrain: Call, run: Path) -> None:
    result = run_partrain("evaluate", run, "--workers", 0, "-q", env={"MPLBACKEND": "nonsense"})
    assert result.exit_code == 0
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("warning: no plots are drawn because matplotlib cannot be imported: ")


def test_damaged_metrics_only_prevent_the_curves(call_partrain: Call, run: Path) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_text("damaged\n" + metrics.read_text())
    shutil.rmtree(run / "plots")
    result = evaluate(call_partrain, run, "-q")
    assert result.exit_code == 0
    assert f"warning: no curves are drawn: {metrics}: line 1 is damaged" in result.stderr
    assert names_in(run) == OF_TEST - {"cost", "accuracy"}


def test_directory_that_cannot_be_written_is_a_warning(
    call_partrain: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    result = evaluate(call_partrain, run, "-q")
    assert result.exit_code == 0
    assert f"warning: {run / 'plots'}: the plots cannot be written: No space left on device" in result.stderr


def test_signal_during_the_last_evaluation_keeps_the_run_complete_without_plots(
    call_partrain: Call, small_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*given: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(training_run, "write_report", write)
    config = small_config({"logging": {"plots": True}})
    result = call_partrain("--config", config, "--workers", 0, "-q", "--run-dir", tmp_path / "stopped")
    assert result.exit_code == 0
    assert not (tmp_path / "stopped/plots").exists()
