"""`partrain sweep`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from partrain.store.sweep_directory import SweepDirectory
from tests.processes import wait_until
from tests.program import PartrainProcess, Result
from tests.small_run import ENDLESS

LR = "training.optimizer.lr"


def document(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def digests(sweep: Path) -> list[str]:
    """Return the digest of the parameters of each trial."""
    return [document(path)["parameters_sha256"] for path in sorted(sweep.glob("trial-*/summary.json"))]


def test_each_training_is_an_ordinary_run_with_the_bits_that_it_has_alone(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config({"data.when_unavailable": "error"})
    result = run_partrain("sweep", "--config", config, "--set", f"{LR}=0.01,0.03", "--seeds", "0,5", "--parallel", 2)
    sweep = tmp_path / result.run
    assert sweep.name.endswith("-small-sweep")
    alone = []
    for seed, lr in ((0, 0.01), (0, 0.03), (5, 0.01), (5, 0.03)):
        run = tmp_path / f"{seed}-{lr}"
        words = ["--set", f"{LR}={lr}", "--set", f"seed={seed}", "--workers", 1, "-q", "--run-dir", run]
        assert run_partrain("--config", config, *words).exit_code == 0
        alone.append(document(run / "summary.json")["parameters_sha256"])
        assert (run / "config.yaml").read_text() == (sweep / f"trial-{len(alone):03d}" / "config.yaml").read_text()
    assert digests(sweep) == alone
    assert len(set(alone)) == 4
    trained = run_partrain("verify", "--all", sweep / "trial-001")
    assert "same bits" in trained.stdout


def test_only_the_best_setting_is_evaluated_on_the_test_examples(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    result = run_partrain("sweep", "--config", small_config(), "--set", f"{LR}=1e-9,0.02")
    sweep = tmp_path / result.run
    tests = [document(sweep / f"trial-00{number}" / "summary.json")["test"] for number in (1, 2)]
    assert tests[0] is None
    assert [path.parent.name for path in sweep.glob("*/evaluation-test.json")] == ["trial-002"]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][:3] == ["lr", "validation/accuracy", "test"]
    assert [row[0] for row in rows[1:3]] == ["0.02", "1e-09"]
    assert f"best: trial-002 (lr=0.02), test accuracy {tests[1]['accuracy']:.2%}" in result.stdout


def test_the_same_command_continues_a_sweep_that_was_killed(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config({"training.epochs": 8, "checkpoints.every_steps": 5})
    words = ["sweep", "--config", config, "--set", f"{LR}=0.01,0.02,0.03,0.04", "--parallel", 2]
    whole = start_partrain(*words, "--sweep-dir", "whole").wait()
    assert whole.exit_code == 0

    def num_checkpoints() -> int:
        return len(list(tmp_path.glob("runs/*-sweep/*/checkpoints/step-*")))

    for enough in (2, 6):
        process = start_partrain(*words)
        wait_until(lambda enough=enough: num_checkpoints() >= enough, "checkpoints")  # type: ignore[misc]
        process.send(signal.SIGKILL)
        process.wait()
    result = start_partrain(*words).wait()
    sweep = tmp_path / result.run
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert digests(sweep) == digests(tmp_path / "whole")
    assert len(document(sweep / "sweep.json")["command_lines"]) == 3
    assert result.stdout.splitlines()[-2] == whole.stdout.splitlines()[-2]  # the best, and its test accuracy
    # Now it is finished, and the same command begins another one.
    assert (tmp_path / start_partrain(*words).wait().run) != sweep


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all_trainings(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    words = ["sweep", "--config", small_config(ENDLESS), "--set", f"{LR}=1e-4,2e-4", "--parallel", 2]
    process = start_partrain(*words, "--sweep-dir", "s")
    metrics = [tmp_path / f"s/trial-00{trial}/metrics.jsonl" for trial in (1, 2)]
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in metrics), "steps of both")
    process.send(number)
    result = process.wait()
    assert result.exit_code == 128 + number
    assert "0 of 2 trainings are complete, and the others are saved; to continue: partrain sweep" in result.stderr
    sweep = SweepDirectory(tmp_path / "s")
    assert [sweep.trial_status(trial) for trial in sweep.read().trials] == ["interrupted"] * 2
    assert all((path.parent / "checkpoints").glob("step-*") for path in metrics)
    assert sweep.holder() is None


def test_others_go_on_when_a_training_fails(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["sweep", "--config", small_config(), "--set", f"{LR}=1e25,0.01", "--sweep-dir", "s"]
    result = run_partrain(*words)
    assert result.exit_code == 1
    assert "1 of 2 trainings failed:\n  trial-001: " in result.stderr
    assert "not finite" in result.stderr
    assert "To continue them: partrain sweep" in result.stderr
    assert "Traceback" not in result.stderr
    sweep = SweepDirectory(tmp_path / "s")
    assert [sweep.trial_status(trial) for trial in sweep.read().trials] == ["failed", "completed"]
    assert "trial-002" in result.stdout


def test_a_training_whose_process_is_killed_is_continued_by_the_same_command(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["sweep", "--config", small_config({"training.epochs": 3}), "--set", f"{LR}=0.01,0.02", "--sweep-dir", "s"]
    kill = {"PARTRAIN_KILL_AT": f"coordinator: after a step|12|{tmp_path / 'token'}"}
    (tmp_path / "token").touch()
    result = start_partrain(*words, env=kill, fresh=True).wait()
    assert result.exit_code == 1
    assert "its process was killed by SIGKILL, perhaps because memory ran out" in result.stderr
    result = start_partrain(*words).wait()
    assert result.exit_code == 0
    assert "1 done already" in result.stderr
    assert len(digests(tmp_path / "s")) == 2


def test_a_sweep_that_is_being_written_is_refused_and_so_are_other_settings(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config(ENDLESS)
    words = ["sweep", "--config", config, "--sweep-dir", "s"]
    process = start_partrain(*words, "--set", f"{LR}=1e-4,2e-4")
    wait_until(lambda: (tmp_path / "s/trial-001/run.json").exists(), "the first run")
    refusal = start_partrain(*words, "--set", f"{LR}=1e-4,2e-4").wait().refusal
    assert "is writing into this sweep" in refusal
    process.send(signal.SIGTERM)
    process.wait()
    refusal = start_partrain(*words, "--set", f"{LR}=1e-4,3e-4").wait().refusal
    assert (
        f"s: is a sweep with other settings. Choose another directory, or repeat its command:\n  --set.{LR}:" in refusal
    )
    assert "0.0001, 0.0002 -> 0.0001, 0.0003" in refusal


BAD_INPUT = {
    "an empty grid": (["--set", f"{LR}="], "there is no value"),
    "nothing to vary": (["--set", f"{LR}=1"], "there is nothing to vary"),
    "malformed seeds": (["--seeds", "0..x"], "'0..x' is neither"),
    "an unknown key": (["--set", "training.optimizer.lrr=1,2"], "did you mean lr?"),
    "an invalid value": (["--set", f"{LR}=0.1,-1"], f"--set {LR}=-1: 1 error"),
    "a key that is given twice": (["--set", f"{LR}=1,2", "--set", f"{LR}=3"], "is given twice"),
    "an unknown objective": (["--seeds", "0..1", "--objective", "test/accuracy"], "this metric is not logged"),
    "no validation examples": (
        ["--seeds", "0..1", "--set", "data.validation_examples=0"],
        "measured on validation examples, and there are none",
    ),
    "a range without a sampler": (["--set", f"{LR}=0.1..0.2"], "a range needs a sampler"),
    "trials without a sampler": (["--seeds", "0..1", "--trials", "4"], "--trials 4: needs --sampler"),
    "a sampler without trials": (["--set", f"{LR}=0.1,0.2", "--sampler", "tpe"], "say how many settings"),
    "a network that does not fit": (["--set", "network.0.conv.kernel=3,99"], "conv"),
}


@pytest.mark.parametrize(("words", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_message_and_leaves_nothing(
    run_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    assert message in run_partrain("sweep", "--config", small_config(), *words).refusal
    assert not list(tmp_path.glob("runs/*"))


def test_fewer_trainings_run_at_a_time_if_memory_is_short(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_config().parent)
    monkeypatch.setattr("partrain.sweeps.preparation.available_memory", lambda: 2**20)
    result = call_partrain("sweep", "--config", small_config(), "--set", f"{LR}=0.01,0.02", "--parallel", 2)
    assert result.exit_code == 0, result.stderr
    assert "1 instead of 2 trainings run at a time: each needs about" in result.stderr
    assert "2 trainings, 1 at a time" in result.stderr


def test_trainings_may_have_workers_which_share_the_data_too(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["sweep", "--config", small_config(), "--set", f"{LR}=0.01,0.02", "--parallel", 2]
    for workers in (0, 1):
        result = run_partrain(*words, "--workers", workers, "--sweep-dir", f"s{workers}")
        assert result.exit_code == 0, result.stderr
    assert digests(tmp_path / "s0") == digests(tmp_path / "s1")
    assert document(tmp_path / "s1/trial-001/run.json")["workers"] == 1
