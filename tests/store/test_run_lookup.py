from __future__ import annotations

from pathlib import Path

import pytest

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_lookup import find_run, run_that_needs


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
