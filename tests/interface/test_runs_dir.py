"""Every command finds and creates runs in the directory of `--runs-dir`, or of PARTRAIN_RUNS_DIR."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import partrain
from partrain.analysis.plots import example_sheets, run_plots
from partrain.store.run_lookup import RUNS_DIR_VARIABLE
from tests.article_file import article_params
from tests.program import Result
from tests.sample_runs import write_run
from tests.small_run import write_small_config

COMMANDS = {
    "resume": ["resume", "this", "--workers", 0],
    "evaluate": ["evaluate", "this", "--workers", 0],
    "predict": ["predict", "this", "--index", 0],
    "examples": ["examples", "this", "--top", 1],
    "export": ["export", "this", "--to", "metrics.csv"],
    "compare": ["compare", "this", "other"],
    "list": ["list"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a trained run and a copy of a log in the directory `elsewhere`."""
    place = tmp_path_factory.mktemp("runs-dir")
    run = partrain.train(
        str(write_small_config(place)), run_dir=place / "elsewhere" / "this-run", workers=0, quiet=True
    )
    assert run.path.is_dir()
    write_run(place / "elsewhere" / "other-run", started="2026-01-01T00:00:00+00:00")
    return place


@pytest.mark.parametrize("way", ["option", "environment"])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_finds_runs(
    call_partrain: Callable[..., Result], place: Path, monkeypatch: pytest.MonkeyPatch, command: str, way: str
) -> None:
    monkeypatch.chdir(place)
    for module in (run_plots, example_sheets):  # plots take longer than all the rest
        monkeypatch.setattr(module, "can_draw", lambda messages: False)
    words = COMMANDS[command]
    if way == "environment":
        monkeypatch.setenv(RUNS_DIR_VARIABLE, "elsewhere")
        result = call_partrain(*words)
    else:
        result = call_partrain(*words, "--runs-dir", "elsewhere")
    monkeypatch.undo()
    assert result.exit_code == 0, result
    assert result.stdout


def test_environment_says_where_runs_are_created(
    call_partrain: Callable[..., Result], tmp_path: Path, small_config: Callable[..., Path]
) -> None:
    (tmp_path / "params.pkl").write_bytes(pickle.dumps([article_params(), [2.3, 0.1]]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUNS_DIR_VARIABLE, str(tmp_path / "elsewhere"))
        trained = call_partrain("--config", small_config(), "--workers", 0, "-q").run
        imported = call_partrain("import-article", tmp_path / "params.pkl").run
        from_python = partrain.train(str(small_config()), workers=0, quiet=True).path
        assert partrain.open_run("last").path == from_python
    assert {path.parent for path in (trained, imported, from_python)} == {tmp_path / "elsewhere"}


def test_option_beats_the_environment(call_partrain: Callable[..., Result], place: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUNS_DIR_VARIABLE, str(place / "nowhere"))
        assert "this-run" in call_partrain("list", "--runs-dir", place / "elsewhere").stdout
        assert "no runs in" in call_partrain("list").stderr
