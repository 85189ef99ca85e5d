"""Contract C4 for the command line and the machine: one message, nothing starts, nothing is left in runs/."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from partrain.data import loading
from partrain.parallel import memory_plan
from partrain.training import resources
from tests.program import Result

Refuse = Callable[..., str]


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "99999", "", " 2", "²", "9" * 5000])
def test_an_invalid_number_of_workers(refuse: Refuse, small_config: Callable[..., Path], number: str) -> None:
    assert "--workers" in refuse("--config", small_config(), "--workers", number)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("train",),
        ("trane", "--config", "x"),
        ("--config",),
        ("--config", "x", "--nonsense"),
        ("--workers", "2"),
    ],
    ids=["nothing", "no config", "unknown command", "no value", "unknown option", "workers alone"],
)
def test_an_invalid_command_line(refuse: Refuse, arguments: tuple[str, ...]) -> None:
    refuse(*arguments, where=())


def test_runs_dir_and_run_dir_exclude_each_other(
    refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path
) -> None:
    where = ("--runs-dir", tmp_path / "runs", "--run-dir", tmp_path / "run")
    assert "not allowed with" in refuse("--config", small_config(), where=where)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_existing_run_directory_is_refused_and_not_touched(
    refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    run = tmp_path / "taken"
    if kind == "folder":
        run.mkdir()
    elif kind == "file":
        run.write_text("mine")
    else:
        run.symlink_to(tmp_path / "nowhere")
    message = refuse("--config", small_config(), where=("--run-dir", run))
    assert f"{run}: exists already" in message
    assert not run.is_dir() or list(run.iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("option", ["--runs-dir", "--run-dir"])
@pytest.mark.parametrize("folder", ["a file", "/proc/nowhere"])
def test_a_directory_that_is_not_writable_is_refused_before_the_data_is_read(
    refuse: Refuse,
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    folder: str,
) -> None:
    def planned(*args: object, **options: object) -> None:
        pytest.fail("the data was read before the directory was checked")

    monkeypatch.setattr(resources, "plan_training", planned)
    if folder == "a file":
        folder = str(tmp_path / "file")
        Path(folder).write_text("mine")
    place = f"{folder}/run" if option == "--run-dir" else folder
    message = refuse("--config", small_config(), where=(option, place))
    assert folder in message
    assert "cannot create a run directory" in message


def test_too_little_memory(refuse: Refuse, small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 2**20)
    message = refuse("--config", small_config(), "--workers", 2)
    # What the process itself has counts as available: it is a part of the plan.
    assert re.search(r"needs about \d+ MiB of memory .*, but \d+ MiB are available; use fewer workers", message)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot allocate ahead")
def test_too_little_shared_memory(
    refuse: Refuse, small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert "MiB of shared memory are needed" in refuse("--config", small_config(), "--workers", 2)


def test_running_out_of_memory_is_reported_with_a_message(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(loading, "divide", allocate)
    result = call_partrain("--config", small_config(), "--workers", 0)
    assert result.exit_code == 1
    assert "error: there is not enough memory for this process" in result.stderr


def test_too_little_disk(
    refuse: Refuse, small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    message = refuse("--config", small_config(), "--workers", 2)
    assert f"{tmp_path / 'runs'}: the run needs about" in message
    assert "are free" in message


@pytest.mark.parametrize("mistake", ["configuration", "workers", "name", "data", "folder"])
def test_the_user_sees_one_message_and_no_traceback(
    run_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    noise_folder: Path,
    tmp_path: Path,
    mistake: str,
) -> None:
    images = noise_folder / "train-images-idx3-ubyte"
    images.unlink()
    images.write_bytes(b"")
    arguments: dict[str, tuple[object, ...]] = {
        "configuration": ("--config", "missing.yaml"),
        "workers": ("--config", small_config(), "--workers", "-1"),
        "name": ("--config", small_config(), "--set", "name=../../x"),
        "data": ("--config", small_config(), "--set", f"data={{name: idx, path: {noise_folder}}}"),
        "folder": ("--config", small_config(), "--runs-dir", images),
    }
    result = run_partrain(*arguments[mistake], fresh=mistake == "configuration")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []
