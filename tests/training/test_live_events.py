"""TensorBoard events that are written while a run trains: each logged value once, whatever happens to the run."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import partrain
from partrain.analysis.export.tensorboard_events import LOCATIONS, EventsFile
from partrain.store.run_paths import RunPaths
from partrain.training import live_events
from tests.events_files import events_in, scalars_in
from tests.noise_data import noise_examples
from tests.program import Result
from tests.small_run import SMALL_CONFIG

TRAIN, TEST = noise_examples(60), noise_examples(20, seed=1)


def config(**logging: Any) -> dict[str, Any]:
    return {name: value for name, value in SMALL_CONFIG.items() if name != "data"} | {
        "training": SMALL_CONFIG["training"] | {"epochs": 4},
        "logging": {"plots": False, "every_steps": 1, "tensorboard": True} | logging,
        "checkpoints": {"every_steps": 2},
    }


def train(folder: Path, *, mapping: dict[str, Any] | None = None, **options: Any) -> partrain.Run:
    options = {"workers": 0, "quiet": True} | options
    return partrain.train(mapping or config(), data=TRAIN, test=TEST, run_dir=folder / "run", **options)


def stop_at(step: int) -> Callable[[dict[str, Any]], bool]:
    return lambda row: bool(row["step"] >= step)


def logged_in(run: partrain.Run) -> dict[str, list[tuple[int, float]]]:
    """Return the metrics of a run as `scalars_in` returns events: a scalar has 32 bits."""
    values: dict[str, list[tuple[int, float]]] = {}
    for row in run.metrics:
        for name, value in row.items():
            if name not in LOCATIONS:
                values.setdefault(name, []).append((row["step"], float(np.float32(value))))
    return values


def require_each_logged_value_once(run: partrain.Run, *, is_complete: bool = True) -> None:
    scalars = scalars_in(run.path / "tensorboard")
    tests = {name: scalars.pop(name, None) for name in ("test/accuracy", "test/loss")}
    assert scalars == logged_in(run)
    steps = run.summary["steps"]
    for name, found in tests.items():
        value = run.summary["test"][name.removeprefix("test/")] if is_complete else None
        assert found == ([(steps, float(np.float32(value)))] if is_complete else None)


def test_events_have_each_logged_value_once_while_it_trains_and_at_the_end(tmp_path: Path) -> None:
    steps_while_it_trains: list[int] = []

    def look(row: dict[str, Any]) -> None:
        (tag,) = [scalars_in(tmp_path / "run/tensorboard")["train/loss"]]
        steps_while_it_trains.append(tag[-1][0])

    run = train(tmp_path, on_step=look)
    assert steps_while_it_trains == list(range(1, run.summary["steps"] + 1))
    require_each_logged_value_once(run)


def test_no_step_appears_twice_after_two_resumes_of_which_one_follows_a_kill(tmp_path: Path) -> None:
    run = train(tmp_path, on_step=stop_at(3))
    require_each_logged_value_once(run, is_complete=False)
    run = run.resume(workers=0, on_step=stop_at(7))
    require_each_logged_value_once(run, is_complete=False)
    # As after a kill: metrics and events are later than the newest checkpoint.
    newest = sorted((run.path / "checkpoints").iterdir())[-1]
    newest.unlink()
    run = run.resume(workers=0)
    assert (run.path / "metrics.cut-1.jsonl").exists()
    require_each_logged_value_once(run)


def test_a_reader_that_follows_goes_on_to_the_next_file_and_drops_what_it_has_read(tmp_path: Path) -> None:
    run = train(tmp_path, on_step=stop_at(3))
    (first,) = (run.path / "tensorboard").iterdir()
    run = run.resume(workers=0, on_step=stop_at(5))
    before, second = sorted((run.path / "tensorboard").iterdir())
    assert (before, before.stat().st_size) == (first, 0)  # a reader that has it open finds nothing more in it
    assert re.search("tfevents", second.name)
    version, start = events_in(run.path / "tensorboard")[:2]
    assert version.file_version == "brain.Event:2"  # of the first file in which there is something
    assert (start.step, start.session_log.status) == (0, start.session_log.START)
    run.resume(workers=0)
    assert not first.exists()
    assert len(list((run.path / "tensorboard").iterdir())) == 2


def test_events_that_are_turned_on_by_a_resume_begin_with_the_first_step(tmp_path: Path) -> None:
    run = train(tmp_path, mapping=config(tensorboard=False), on_step=stop_at(3))
    assert not (run.path / "tensorboard").exists()
    run = run.resume(workers=0, changes={"logging.tensorboard": True})
    require_each_logged_value_once(run)


def test_configuration_results_and_pictures_are_in_the_events(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = train(tmp_path, mapping=config(plots=True))
    values = [value for event in events_in(run.path / "tensorboard") for value in event.summary.value]
    (text,) = (value for value in values if value.tag == "config/text_summary")
    assert (run.path / "config.yaml").read_bytes() in text.tensor.string_val[0]
    plugins = [value.metadata.plugin_data for value in values if value.tag.startswith("_hparams_/")]
    assert [plugin.plugin_name for plugin in plugins] == ["hparams"] * 3  # experiment, start, end
    assert b"training.optimizer.lr" in plugins[1].content
    pictures = {value.tag: value.image for value in values if value.HasField("image")}
    files = list((run.path / "plots").glob("*.png"))
    assert {"cost", "accuracy", "confusion-test"} <= set(pictures) == {path.stem for path in files}
    for path in files:
        assert pictures[path.stem].encoded_image_string == path.read_bytes()
    assert (pictures["cost"].width, pictures["cost"].height) == (960, 600)


def test_missing_package_is_one_message_before_a_run_is_created_or_changed(
    tmp_path: Path, call_partrain: Callable[..., Result], small_config: Callable[..., Path], monkeypatch: Any
) -> None:
    path = small_config({"training.max_steps": 2})
    words = ("--config", path, "--workers", 0, "--run-dir", tmp_path / "run")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    refusal = call_partrain(*words, "--set", "logging.tensorboard=true").refusal
    assert "logging.tensorboard needs the package tensorboardX: pip install 'partrain[export]'" in refusal
    assert not (tmp_path / "run").exists()
    assert call_partrain(*words).exit_code == 0  # needs it only if it is asked for
    before = (tmp_path / "run/run.json").read_bytes()
    more = ("resume", tmp_path / "run", "--max-steps", 4, "--workers", 0)
    assert "tensorboardX" in call_partrain(*more, "--set", "logging.tensorboard=true").refusal
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_a_full_disk_is_one_warning_and_the_next_resume_writes_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_row = EventsFile.write_row

    def fail(file: EventsFile, row: dict[str, Any]) -> None:
        if row["step"] >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_row(file, row)

    with monkeypatch.context() as patch:
        patch.setattr(EventsFile, "write_row", fail)
        run = train(tmp_path, on_step=stop_at(5))
    said = capsys.readouterr().err
    assert said.count("warning") == said.count("TensorBoard events cannot be written: No space left on device") == 1
    assert [step for step, _ in scalars_in(run.path / "tensorboard")["train/loss"]] == [1]
    assert len(run.metrics) >= 5
    require_each_logged_value_once(run.resume(workers=0))


def test_a_directory_that_cannot_be_made_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(live_events, "make_folders", fail)
    assert train(tmp_path).status == "completed"
    assert capsys.readouterr().err.count("TensorBoard events cannot be written: Permission denied") == 1


def test_half_a_record_does_not_stay_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EventsFile(tmp_path / "events", 0.0)
    file.write_row({"step": 1, "train/loss": 0.5})
    before, write = (tmp_path / "events").read_bytes(), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        with pytest.raises(OSError, match="No space left"):
            file.write_row({"step": 2, "train/loss": 0.5})
    file.close()
    assert (tmp_path / "events").read_bytes() == before


def test_events_belong_to_the_run(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert run.is_run_file(run.tensorboard_path)
    assert run.is_run_file(run.tensorboard_path / "events.out.tfevents.1.partrain")
