from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.analysis.export.metrics import events_name
from partrain.store.run_directory import RunDirectory
from tests.program import Result, call_without_numba
from tests.saved_runs import write_saved_run

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_saved_run(Path("runs/run"))
    return Path("runs/run")


def refused(call: Call, *arguments: object) -> str:
    result = call("export", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result
    assert result.stderr.startswith("error: ")
    return result.stderr


@pytest.mark.parametrize("name", ["m.safetensors", "m.npz", "m.onnx", "m.py", "m.csv", "M.CSV", "new/folder/m.npz"])
def test_suffix_selects_the_format_and_the_path_goes_to_stdout(call_partrain: Call, name: str) -> None:
    result = call_partrain("export", "run", "--to", name)
    assert (result.exit_code, result.stdout) == (0, f"{name}\n")
    assert result.stderr.startswith("runs/run: ")
    assert Path(name).stat().st_size > 100
    assert os.listdir(Path(name).parent).count(Path(name).name) == 1
    assert not [file for file in os.listdir(Path(name).parent) if file.endswith(".tmp")]


def test_format_option_overrides_the_suffix(call_partrain: Call) -> None:
    assert call_partrain("export", "last", "--to", "m.bin", "--format", "npz", "-q") == Result(0, "m.bin\n", "")
    assert Path("m.bin").read_bytes()[:2] == b"PK"


def test_existing_file_is_replaced_and_a_link_is_followed(call_partrain: Call) -> None:
    Path("real.csv").write_text("old")
    Path("link.csv").symlink_to("real.csv")
    assert call_partrain("export", "run", "--to", "link.csv").exit_code == 0
    assert Path("link.csv").is_symlink()
    assert Path("real.csv").read_text().startswith("step,")


def test_events_go_into_a_directory_where_a_later_export_replaces_them(call_partrain: Call, run: Path) -> None:
    for _ in range(2):
        result = call_partrain("export", "run", "--to", "board", "--format", "tensorboard")
        name = events_name(RunDirectory.open(run))
        assert (result.exit_code, result.stdout) == (0, f"board/{name}\n")
        assert os.listdir("board") == [name]


def test_events_of_two_runs_are_not_mixed(call_partrain: Call) -> None:
    write_saved_run(Path("runs/other"))
    assert call_partrain("export", "run", "--to", "board", "--format", "tensorboard").exit_code == 0
    said = refused(call_partrain, "other", "--to", "board", "--format", "tensorboard")
    assert "contains the events of another run" in said


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--to", "model.pt"], ["model.pt", "suffix", ".safetensors", "--format"]),
        (["--to", "model"], ["suffix"]),
        (["--to", "events.tensorboard"], ["suffix"]),
        (["--to", "model.npz", "--format", "torch"], ["--format torch", "no such format", "safetensors, npz, onnx"]),
        (["--to", "2nd.py"], ["2nd.py", "cannot import"]),
        (["--to", "class.py"], ["class.py", "cannot import"]),
        (["--to", ".", "--format", "csv"], ["is a directory"]),
        (["--to", "/dev/null", "--format", "csv"], ["/dev/null", "not a regular file"]),
        (["--to", "runs/run/run.json/m.csv"], ["cannot be written", "Not a directory"]),
        (["--to", "runs/run/metrics.jsonl", "--format", "csv"], ["is a file of the run", "cannot be replaced"]),
        (["--to", "runs/run/checkpoints/step-00000002.safetensors"], ["is a file of the run"]),
        (["--to", "runs/run/run.json", "--format", "tensorboard"], ["is not a directory"]),
        (["--to", "x" * 300 + ".csv"], ["cannot be written", "too long"]),
    ],
)
def test_bad_target_is_an_error_and_the_run_is_unchanged(
    call_partrain: Call, run: Path, arguments: list[str], fragments: list[str]
) -> None:
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    said = refused(call_partrain, "run", *arguments)
    assert all(fragment in said for fragment in fragments), said
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before


def test_export_into_the_runs_own_directory_is_allowed(call_partrain: Call, run: Path) -> None:
    for _ in range(2):
        assert call_partrain("export", "run", "--to", run / "model.npz").exit_code == 0


def test_unknown_run_is_an_error_that_names_the_nearest(call_partrain: Call) -> None:
    assert "runs/run" in refused(call_partrain, "runn", "--to", "m.npz")


def test_a_failed_write_leaves_the_old_file(call_partrain: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.csv").write_text("old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert "No space left on device" in refused(call_partrain, "run", "--to", "m.csv")
    assert Path("m.csv").read_text() == "old"
    assert sorted(os.listdir()) == ["m.csv", "runs"]


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.py", "m.csv"])
def test_export_imports_no_numba(name: str) -> None:
    assert call_without_numba("export", "run", "--to", name) == 0
