"""A resumed run has the bits of the uninterrupted run; some settings may change in between, others may not."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from partrain.store.run_directory import RunDirectory
from partrain.store.unfinished_run import is_unfinished
from tests.noise_data import noise_examples, write_idx_folder
from tests.processes import wait_until
from tests.program import RUN_SECONDS, Result
from tests.whole_runs import (
    IN_MID_EPOCH,
    Runs,
    count_passings,
    edit_json,
    outcome,
    points_of,
    read_json,
    rows_of,
    write_config,
)

# ---- the same bits


@pytest.fixture(scope="module")
def passings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often an undisturbed run passes each kill point."""
    return count_passings(tmp_path_factory.mktemp("counted"))


@pytest.mark.parametrize("point", points_of("coordinator"))
def test_run_killed_at_this_point_has_the_bits_of_the_undisturbed_run(
    runs: Runs, undisturbed: Path, passings: dict[str, int], point: str
) -> None:
    last = passings.get(point, 0)  # 0: the point is one of resuming, or of the pool of workers
    for k in sorted({1, (last + 1) // 2, last}):
        if k <= max(1, last):
            run = runs.train(kill_at=f"{point}|{k}", name=f"run-{k}")
            if not (run / "config.yaml").exists():
                assert last  # it was killed before it had a configuration
                runs.train(name=run.name)
                assert outcome(run) == outcome(undisturbed)
                continue
            assert is_unfinished(run) or RunDirectory.open(run).status() in ("interrupted", "completed")
            in_resume = runs.resume(run, kill_at=f"{point}|1")
            assert in_resume.exit_code in (0, -signal.SIGKILL), in_resume
            result = runs.resume(run)
            assert result.exit_code == 0, result
            assert outcome(run) == outcome(undisturbed)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
def test_run_that_is_killed_repeatedly_has_the_bits_of_the_undisturbed_run(
    runs: Runs, undisturbed: Path, seed: int
) -> None:
    rng, points, num_kills = random.Random(seed), points_of("coordinator"), 0
    run = runs.folder / "runs" / "run"
    while True:
        kill_at = f"{rng.choice(points)}|{rng.randint(1, 6)}" if num_kills < 8 else None
        if (run / "config.yaml").exists():
            result = runs.resume(run, kill_at=kill_at)
        else:
            result = runs.call("--config", write_config(runs.folder), "--run-dir", run, kill_at=kill_at)
        assert result.exit_code in (0, -signal.SIGKILL), result
        num_kills += result.exit_code != 0
        if result.exit_code == 0:
            assert outcome(run) == outcome(undisturbed)
            if kill_at is None:
                return
            shutil.rmtree(run)  # it has passed the point too seldom; another run takes the next kills


@pytest.mark.parametrize("epochs", [8, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_stopped_at_random_moments_has_the_bits_of_the_undisturbed_run(
    runs: Runs, tmp_path: Path, number: signal.Signals, epochs: int
) -> None:
    expected = outcome(runs.train({"training.epochs": epochs}, name="undisturbed"))
    rng = random.Random(int(number))
    run = tmp_path / "stopped"
    child = runs.start("--config", tmp_path / "small.yaml", "--run-dir", run)
    num_stops = 0
    while True:
        wait_until(lambda child=child: "parameters" in child.stderr, "that it trains", RUN_SECONDS)
        time.sleep(rng.uniform(0, 0.1))
        child.send(number)
        result = child.wait()
        status = RunDirectory.open(run).status() if (run / "run.json").exists() else "interrupted"
        if status == "completed":  # the last signal may have ended the process when nothing was left to save
            assert result.exit_code in (0, 128 + number, -number), result
            break
        num_stops += 1
        assert (result.exit_code, status) == (128 + number, "interrupted"), result
        child = runs.start("resume", run)
    assert outcome(run) == expected


def test_run_killed_in_mid_epoch_continues_with_the_next_example(killed: Path, runs: Runs, undisturbed: Path) -> None:
    result = runs.resume(killed)
    assert result.run == killed
    assert "resumed from step 12; 2 later lines of metrics were set aside" in result.stderr
    assert outcome(killed) == outcome(undisturbed)
    (lineage,) = read_json(killed / "run.json")["lineage"]
    assert (lineage["from_step"], lineage["horizon"], lineage["differences"]) == (12, {}, [])


@pytest.mark.parametrize("workers", [1, 3])
def test_other_number_of_workers_changes_no_bit(
    killed: Path, run_partrain: Callable[..., Result], undisturbed: Path, workers: int
) -> None:
    assert run_partrain("resume", killed, "--workers", workers).exit_code == 0
    assert outcome(killed) == outcome(undisturbed)


def test_rows_that_are_cut_are_kept_in_another_file_and_a_torn_line_is_dropped(
    killed: Path, runs: Runs, undisturbed: Path
) -> None:
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step":15,"epo')
    assert runs.resume(killed).exit_code == 0
    cut = [json.loads(line) for line in (killed / "metrics.cut-1.jsonl").read_text().splitlines()]
    assert [row["step"] for row in cut] == [14, 15]
    assert outcome(killed) == outcome(undisturbed)
    steps = [(row["step"], "train/loss" in row) for row in rows_of(killed)]
    assert len(steps) == len(set(steps))


# ---- what must not have changed


def test_edited_identity_is_refused_and_shown(killed: Path, runs: Runs) -> None:
    config = yaml.safe_load((killed / "config.yaml").read_text())
    config["seed"] = 6
    config["training"]["optimizer"]["lr"] = 0.5
    (killed / "config.yaml").write_text(yaml.safe_dump(config))
    message = runs.resume(killed).refusal
    assert "seed: 5 -> 6" in message
    assert "training.optimizer.lr: 0.01 -> 0.5" in message


def test_edited_horizon_has_no_effect_and_is_reported(killed: Path, runs: Runs, undisturbed: Path) -> None:
    config = yaml.safe_load((killed / "config.yaml").read_text())
    config["training"]["epochs"] = 7
    (killed / "config.yaml").write_text(yaml.safe_dump(config))
    result = runs.resume(killed)
    assert "training.epochs: 7 has no effect; the run has 2, and --epochs changes it" in result.stderr
    assert outcome(killed) == outcome(undisturbed)


def test_changed_data_is_refused(runs: Runs, noise_folder: Path) -> None:
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 10}
    run = runs.train({"data": data}, kill_at="coordinator: after a save|1")
    images, labels = noise_examples(60)
    images[3, 4, 5] ^= 1
    write_idx_folder(noise_folder, (images, labels), noise_examples(20, seed=1))
    assert "the data changed after the run started" in runs.resume(run).refusal
    assert RunDirectory.open(run).status() == "interrupted"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.optimizer.lr=0.5", "training.optimizer.lr"),
        ("seed=4", "seed: 5 -> 4"),
        ("training.epochs=9", "--epochs"),
        ("training.max_steps=9", "--max-steps"),
        ("logging.often=9", "logging.often"),
    ],
)
def test_set_changes_runtime_fields_only(killed: Path, runs: Runs, override: str, named: str) -> None:
    assert named in runs.resume(killed, "--set", override).refusal


def test_runtime_fields_may_change(killed: Path, runs: Runs, undisturbed: Path) -> None:
    changes = ("logging.every_steps=1", "checkpoints.keep_last=9", "checkpoints.every_steps=1")
    assert runs.resume(killed, *(word for change in changes for word in ("--set", change))).exit_code == 0
    sha256 = [read_json(run / "summary.json")["parameters_sha256"] for run in (killed, undisturbed)]
    assert sha256[0] == sha256[1]
    assert [row["step"] for row in rows_of(killed) if "lr" in row] == [3, 6, 9, 12, *range(13, 21)]
    assert yaml.safe_load((killed / "config.yaml").read_text())["logging"]["every_steps"] == 1


def test_other_versions_and_processors_are_recorded_without_a_warning(
    killed: Path, runs: Runs, undisturbed: Path
) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["versions"]["numba"] = "0.1"
        record["processor"] = {"machine": "x", "name": "abacus", "features": ["beads"]}

    edit_json(killed / "run.json", edit)
    result = runs.resume(killed)
    assert result.exit_code == 0
    assert "warning" not in result.stderr
    recorded = read_json(killed / "run.json")["lineage"][-1]["differences"]
    assert len(recorded) == 2
    assert recorded[0].startswith("numba 0.1 -> ")
    assert recorded[1].startswith("processor abacus -> ")
    assert outcome(killed) == outcome(undisturbed)


# ---- how far it goes


def test_completed_run_says_so_and_stays_as_it_is(completed: Path, runs: Runs) -> None:
    before = {path: path.read_bytes() for path in completed.rglob("*") if path.is_file() and path.suffix != ".lock"}
    result = runs.resume(completed)
    assert result.run == completed
    assert "is complete: 20 steps" in result.stderr
    assert before == {path: path.read_bytes() for path in before}


def test_more_epochs_move_the_horizon_and_not_the_schedule(completed: Path, runs: Runs) -> None:
    assert runs.resume(completed, "--epochs", 3).exit_code == 0
    record = read_json(completed / "run.json")
    assert record["lineage"][-1]["horizon"] == {"epochs": 3}
    assert record["status"] == "completed"
    assert yaml.safe_load((completed / "config.yaml").read_text())["training"]["schedule"]["decay_steps"] == 20
    in_one_go = runs.train({"training.epochs": 3, "training.schedule": {"decay_steps": 20}}, name="in-one-go")
    summaries = [read_json(run / "summary.json") for run in (completed, in_one_go)]
    assert summaries[0]["steps"] == 30
    assert summaries[0]["parameters_sha256"] == summaries[1]["parameters_sha256"]
    assert summaries[0]["test"] == summaries[1]["test"]


def test_more_steps_move_the_horizon(runs: Runs, undisturbed: Path) -> None:
    run = runs.train({"training.max_steps": 9})
    assert RunDirectory.open(run).status() == "completed"
    assert runs.resume(run, "--max-steps", 13).exit_code == 0
    assert runs.resume(run, "--max-steps", 20).exit_code == 0
    assert [entry["horizon"] for entry in read_json(run / "run.json")["lineage"]] == [
        {"max_steps": 13},
        {"max_steps": 20},
    ]
    sha256 = [read_json(run / "summary.json")["parameters_sha256"] for run in (run, undisturbed)]
    assert sha256[0] == sha256[1]


@pytest.mark.parametrize(
    ("flag", "number", "end"), [("--max-steps", 5, 5), ("--max-steps", 12, 12), ("--epochs", 1, 10)]
)
def test_horizon_that_the_run_has_already_reached_is_refused(
    killed: Path, runs: Runs, undisturbed: Path, flag: str, number: int, end: int
) -> None:
    message = runs.resume(killed, flag, number).refusal
    assert f"{flag} {number}: " in message
    assert f"would end at step {end}, but is already at step 12" in message
    assert runs.resume(killed).exit_code == 0
    assert outcome(killed) == outcome(undisturbed)


def test_completed_run_cannot_be_shortened(completed: Path, runs: Runs) -> None:
    assert "would end at step 9, but is already at step 20" in runs.resume(completed, "--max-steps", 9).refusal


# ---- one writer


def test_second_resume_of_a_run_is_refused_with_the_process_id_of_the_first(runs: Runs, undisturbed: Path) -> None:
    run = runs.train({"training.epochs": 100_000}, kill_at=IN_MID_EPOCH)
    children = [runs.start("resume", run) for _ in range(2)]
    wait_until(lambda: any(child.popen.poll() is not None for child in children), "that one is refused", RUN_SECONDS)
    winner, loser = sorted(children, key=lambda child: child.popen.poll() is not None)
    assert f"process {winner.popen.pid} on " in loser.wait().refusal
    assert RunDirectory.open(run).status() == "running"
    wait_until(lambda: "parameters" in winner.stderr, "that the other trains", RUN_SECONDS)
    winner.send(signal.SIGTERM)
    assert winner.wait().exit_code == 143
    assert RunDirectory.open(run).status() == "interrupted"


def test_runs_that_start_in_the_same_second_get_directories_of_their_own(runs: Runs, undisturbed: Path) -> None:
    config = write_config(runs.folder)
    children = [runs.start("--config", config) for _ in range(16)]
    made = {child.wait().run for child in children}
    assert len(made) == 16
    for run in made:
        assert outcome(runs.folder / run) == outcome(undisturbed)


# ---- which run


@pytest.mark.parametrize("reference", ["path", "name", "last", "last~1"])
def test_run_is_found_by_its_path_its_name_or_its_age(runs: Runs, undisturbed: Path, reference: str) -> None:
    older, newer = (runs.train(kill_at=IN_MID_EPOCH, name=name) for name in ("older", "newer"))
    edit_json(older / "run.json", lambda record: record.update(started="2026-01-01T00:00:00+00:00"))
    run, given = {
        "path": (older, str(older)),
        "name": (older, "older"),
        "last": (newer, "last"),
        "last~1": (older, "last~1"),
    }[reference]
    result = runs.call("resume", given)
    assert result.exit_code == 0, result
    assert outcome(run) == outcome(undisturbed)
    assert [RunDirectory.open(path).status() for path in (older, newer) if path != run] == ["interrupted"]


def test_unknown_run_is_an_error_that_names_the_nearest(killed: Path, runs: Runs) -> None:
    killed.rename(killed.with_name("digits-one"))
    assert "did you mean runs/digits-one?" in runs.call("resume", "digits-onne").refusal
    for reference in ("last~7", "nothing-like-it", "", "..", "x" * 5000, "a/b"):
        assert "Traceback" not in runs.call("resume", reference).refusal
