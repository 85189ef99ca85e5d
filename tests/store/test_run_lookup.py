from __future__ import annotations

from pathlib import Path

import pytest

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_lookup import RUNS_DIR_VARIABLE, find_run, run_that_needs, runs_directory


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Return a directory of three runs, a damaged run and a directory that is not a run."""
    runs_dir = tmp_path / "runs"
    for name, started in (("b", "2026-01-02"), ("a", "2026-01-03"), ("c", "2026-01-01")):
        RunDirectory.create_at(runs_dir / name).write_run_json({"status": "completed", "started": started})
    RunDirectory.create_at(runs_dir / "damaged").run_json_path.write_text("{")
    (runs_dir / "notes").mkdir()
    return runs_dir


def test_last_is_the_run_that_started_last_and_counts_backwards(runs_dir: Path) -> None:
    assert [find_run(f"last~{n}", runs_dir).name for n in range(3)] == ["a", "b", "c"]
    assert find_run("last", runs_dir).name == "a"
    with pytest.raises(RunError, match=r"last~3: there are 3 runs in"):
        find_run("last~3", runs_dir)


def test_a_run_is_found_by_its_path_and_by_its_name(runs_dir: Path) -> None:
    assert find_run(str(runs_dir / "b"), Path("elsewhere")) == runs_dir / "b"
    assert find_run("b", runs_dir) == runs_dir / "b"


@pytest.mark.parametrize("reference", ["", ".b", "../runs/b", "x" * 5000, "last~", "last~-1"])
def test_other_references_find_no_run(reference: str, runs_dir: Path) -> None:
    with pytest.raises(RunError, match="there is no such run"):
        find_run(reference, runs_dir)


def test_the_nearest_name_is_suggested(tmp_path: Path) -> None:
    RunDirectory.create_at(tmp_path / "20261123-171502-mnist").write_run_json({"status": "completed"})
    with pytest.raises(RunError, match=r"did you mean .*20261123-171502-mnist\?"):
        find_run("20261123-171502-mnits", tmp_path)


def test_the_files_that_training_and_evaluation_write_belong_to_their_run(runs_dir: Path) -> None:
    run = RunDirectory.open(runs_dir / "a")
    needed = (
        *(run.config_path, run.metrics_path, run.lock_path, run.checkpoints_path / "step-00000001.safetensors"),
        *(run.evaluation_path("test"), run.plots_path / "cost.png", run.path / "metrics.cut-1.jsonl"),
        *(run.checkpoints_path, run.plots_path),
    )
    assert [run_that_needs(path) for path in needed] == [run.path] * len(needed)
    assert run_that_needs(run.path / "model.onnx") is None
    assert run_that_needs(runs_dir / "model.onnx") is None


@pytest.fixture
def dated_runs(tmp_path: Path) -> Path:
    """Return a directory of five runs named by their time, and a directory that is not a run."""
    for number in range(1, 6):
        RunDirectory.create_at(tmp_path / f"2026112{number}-171502-mnist").write_run_json({"status": "completed"})
    (tmp_path / "20261129-171502-notes").mkdir()
    return tmp_path


@pytest.mark.parametrize("reference", ["20261123", "20261123-171502-mnis", "20261123-171502-mnist"])
def test_a_run_is_found_by_the_beginning_of_its_name(dated_runs: Path, reference: str) -> None:
    assert find_run(reference, dated_runs) == dated_runs / "20261123-171502-mnist"
    assert find_run(str(dated_runs / reference), Path("elsewhere")) == dated_runs / "20261123-171502-mnist"


def test_a_beginning_of_several_names_is_refused_with_the_newest_names(dated_runs: Path) -> None:
    message = (
        r"'2026': 5 runs begin like this: 20261123-\S+, 20261124-\S+, 20261125-\S+ and 2 more; write more of the name"
    )
    with pytest.raises(RunError, match=message):
        find_run("2026", dated_runs)


def test_only_runs_are_found_by_the_beginning_of_their_names(dated_runs: Path) -> None:
    with pytest.raises(RunError, match="there is no such run"):
        find_run("20261129", dated_runs)


def test_a_name_that_begins_other_names_is_that_run(dated_runs: Path) -> None:
    RunDirectory.create_at(dated_runs / "20261123").write_run_json({"status": "completed"})
    assert find_run("20261123", dated_runs) == dated_runs / "20261123"


def test_the_directory_of_runs_is_the_given_one_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNS_DIR_VARIABLE, raising=False)
    assert runs_directory(None) == Path("runs")
    monkeypatch.setenv(RUNS_DIR_VARIABLE, "")
    assert runs_directory(None) == Path("runs")
    monkeypatch.setenv(RUNS_DIR_VARIABLE, "/scratch/runs")
    assert runs_directory(None) == Path("/scratch/runs")
    assert runs_directory("mine") == Path("mine")
