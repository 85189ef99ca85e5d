"""What happens to a run whose directory, or a file in it, is moved or removed while it trains."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from tests.program import Result
from tests.whole_runs import outcome, read_json, rows_of, write_config

# The steps 3, 6, 9 … are logged; 4, 7, 8, 10 … are saved.
ACTED_AFTER = 5
NOTICED_AFTER = 6


class Training:
    """A training in this process, and what is done to it after a step."""

    def __init__(self, call: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._call, self._folder, self._monkeypatch = call, folder, monkeypatch
        self.run = folder / "runs" / "run"
        self.num_steps = 0

    def disturb(self, act: Callable[[], object], *, after_step: int = ACTED_AFTER) -> Result:
        """Train; call `act` after a step."""

        def count(point: str) -> None:
            if point == "coordinator: after a step":
                self.num_steps += 1
                if self.num_steps == after_step:
                    act()

        with self._monkeypatch.context() as patch:
            patch.setattr("partrain.training.coordinator.kill_point", count)
            return self._call("--config", write_config(self._folder), "--run-dir", self.run, "--workers", 0)


@pytest.fixture
def training(call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(call_partrain, tmp_path, monkeypatch)


# ---- the run's directory


@pytest.mark.parametrize("parent", [False, True], ids=["run", "parent"])
def test_training_ends_when_its_directory_is_removed(training: Training, parent: bool) -> None:
    removed = training.run.parent if parent else training.run
    result = training.disturb(lambda: shutil.rmtree(removed))
    assert (result.exit_code, result.stdout) == (1, "")
    assert training.num_steps < NOTICED_AFTER
    (message,) = [line for line in result.stderr.splitlines() if "warning" in line or "error" in line]
    assert message.startswith(f"error: {training.run}: this directory is gone")
    assert "nothing more is saved" in message
    assert not removed.exists()


def test_nothing_is_written_into_another_directory_at_the_same_place(training: Training) -> None:
    def replace() -> None:
        shutil.rmtree(training.run)
        (training.run / "checkpoints").mkdir(parents=True)

    result = training.disturb(replace)
    assert result.exit_code == 1
    assert "this directory is gone" in result.stderr
    assert [path.name for path in training.run.rglob("*")] == ["checkpoints"]


@pytest.mark.parametrize("parent", [False, True], ids=["run", "parent"])
def test_training_ends_saved_in_the_new_place_when_its_directory_is_moved(
    training: Training, call_partrain: Callable[..., Result], undisturbed: Path, parent: bool
) -> None:
    moved = training.run.parent if parent else training.run
    place = moved.with_name("elsewhere")
    result = training.disturb(lambda: moved.rename(place))
    run = place / training.run.name if parent else place
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"moved to {run}" in result.stderr
    assert f"saved there at step {NOTICED_AFTER}; to continue: partrain resume {run}" in result.stderr
    assert "warning" not in result.stderr
    assert not moved.exists()
    assert read_json(run / "run.json")["status"] == "failed"
    assert call_partrain("resume", run, "--workers", 0).exit_code == 0
    assert outcome(run) == outcome(undisturbed)


@pytest.mark.parametrize("after_step", [18, 19])
def test_run_is_completed_in_its_new_place_if_it_is_moved_at_its_end(
    training: Training, undisturbed: Path, after_step: int
) -> None:
    place = training.run.with_name("elsewhere")
    result = training.disturb(lambda: training.run.rename(place), after_step=after_step)
    assert result.run == place
    assert f"moved to {place}" in result.stderr
    assert outcome(place) == outcome(undisturbed)


# ---- files in it


def test_removed_checkpoints_are_replaced_at_the_next_logged_step(training: Training, undisturbed: Path) -> None:
    result = training.disturb(lambda: shutil.rmtree(training.run / "checkpoints"))
    assert result.exit_code == 0
    assert "step-00000004.safetensors: was removed; the current step is saved in its place" in result.stderr
    assert result.stderr.count("warning") == 1
    assert outcome(training.run) == outcome(undisturbed)


@pytest.mark.parametrize("after_step", [ACTED_AFTER, 20])
def test_removed_documents_are_written_again(
    training: Training, undisturbed: Path, call_partrain: Callable[..., Result], after_step: int
) -> None:
    paths = [training.run / name for name in ("config.yaml", "run.json")]
    before: list[str] = []

    def remove() -> None:
        for path in paths:
            before.append(path.read_text())
            path.unlink()

    result = training.disturb(remove, after_step=after_step)
    assert result.exit_code == 0
    for path in paths:
        assert result.stderr.count(f"{path}: was removed, and is written again") == 1
    assert result.stderr.count("warning") == 2
    assert paths[0].read_text() == before[0]
    assert outcome(training.run) == outcome(undisturbed)
    assert call_partrain("evaluate", training.run, "--workers", 0).exit_code == 0


def test_documents_are_written_again_within_a_logging_interval(training: Training) -> None:
    def look() -> None:
        missing.append(not (training.run / "config.yaml").exists())

    def remove() -> None:
        (training.run / "config.yaml").unlink()
        training.num_steps -= 1 + NOTICED_AFTER - ACTED_AFTER
        acts.append(look)

    missing: list[bool] = []
    acts = [remove]
    training.disturb(lambda: acts[-1]())
    assert missing == [False]


@pytest.mark.slow
@pytest.mark.parametrize("replacement", [None, "", '{"step":3}\n', '{"step":3}\n{"st'])
def test_metrics_are_continued_in_a_new_file(training: Training, undisturbed: Path, replacement: str | None) -> None:
    path = training.run / "metrics.jsonl"

    def replace() -> None:
        path.unlink()
        if replacement is not None:
            path.write_text(replacement)

    result = training.disturb(replace)
    assert result.exit_code == 0
    assert f"{path}: was removed or replaced; from step 6 on" in result.stderr
    lines = path.read_text().splitlines()
    if replacement:
        assert lines[: replacement.count("{")] == replacement.splitlines()
        path.write_text("\n".join(lines[replacement.count("{") :]) + "\n")
    assert rows_of(training.run) == [row for row in rows_of(undisturbed) if row["step"] > ACTED_AFTER]


def test_removed_lock_file_is_replaced_and_locked(training: Training, undisturbed: Path) -> None:
    def lock() -> None:
        with pytest.raises(RunError, match="is writing into this run"):
            RunDirectory.open(training.run).lock()

    def remove() -> None:
        (training.run / "run.lock").unlink()
        training.num_steps -= NOTICED_AFTER - ACTED_AFTER  # act again after the next step
        acts.append(lock)

    acts = [remove]
    result = training.disturb(lambda: acts[-1]())
    assert result.exit_code == 0
    assert acts == [remove, lock]
    assert outcome(training.run) == outcome(undisturbed)


def test_training_ends_when_another_process_has_locked_a_new_lock_file(training: Training) -> None:
    with contextlib.ExitStack() as at_end:

        def lock() -> None:
            (training.run / "run.lock").unlink()
            at_end.enter_context(RunDirectory.open(training.run).lock())

        result = training.disturb(lock)
        assert read_json(training.run / "run.json")["status"] == "running"
    assert result.exit_code == 1
    assert "is writing into this run" in result.stderr
    assert "nothing more is saved" in result.stderr
    assert not (training.run / "checkpoints" / "step-00000006.safetensors").exists()
