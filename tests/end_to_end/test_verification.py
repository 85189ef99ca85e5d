"""Runs that are verified: nothing differs after any history of a run, and every altered value is found."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import partrain
from partrain.errors import VerificationFailed
from partrain.store.checkpoint import Checkpoint, encode, load
from partrain.store.checkpoint_directory import CheckpointDirectory
from tests.mpi_processes import isolated_jobs, mpiexec, needs_mpi
from tests.program import Result
from tests.small_run import train_small

Call = Callable[..., Result]
PRIVATE: dict[str, Any] = {
    "training.per_example": {"clip": 1.0},
    "training.privacy": {"noise_multiplier": 1.0, "delta": 1e-3},
}
CHANGES = {"training.epochs": 3, "checkpoints": {"digests": 5, "keep_last": 4}, "logging": {"every_steps": 2}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run of 30 steps with checkpoints of steps 10, 20 and 30; tests copy its directory."""
    return train_small(tmp_path_factory.mktemp("trained"), CHANGES)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run for one test."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def refusal(call: Call, *arguments: object, exit_code: int = 1) -> str:
    """Verify a run that cannot be verified; return the message."""
    result = call("verify", *arguments, "--workers", 0, "-q")
    assert (result.exit_code, result.stdout) == (exit_code, ""), result
    return result.stderr.strip()


def edit_metrics(run: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    edit(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def flip_a_bit(path: Path, rng: np.random.Generator) -> tuple[str, list[int]]:
    """Change one bit of a tensor in a checkpoint, and give the file a digest that fits; return tensor and index."""
    state = load(path)
    name = str(rng.choice(sorted(state.tensors)))
    place = int(rng.integers(state.tensors[name].size))
    state.tensors[name].reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << int(rng.integers(32)))
    path.write_bytes(encode(state))
    return name, [int(k) for k in np.unravel_index(place, state.tensors[name].shape)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "steps 20 to 30, 1 checkpoint, 8 lines of metrics, the test result"),
        (("--all",), "steps 0 to 30, 3 checkpoints, 24 lines of metrics, the test result"),
        (("--from", 15, "--to", 25), "steps 10 to 25, 1 checkpoint, 11 lines of metrics"),
        (("--to", 10), "steps 0 to 10, 1 checkpoint, 8 lines of metrics"),
    ],
)
def test_range_of_steps_is_computed_again_and_compared(
    call_partrain: Call, trained: Path, arguments: tuple[object, ...], expected: str
) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    result = call_partrain("verify", trained, "--workers", 0, "-q", *arguments)
    assert (result.exit_code, result.stdout) == (0, f"verified: {expected}: same bits\n"), result
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_result_is_also_json_and_a_value_in_python(call_partrain: Call, trained: Path) -> None:
    result = call_partrain("verify", trained, "--workers", 2, "-q", "--json")
    verification = partrain.open_run(trained, quiet=True).verify(workers=0)
    assert json.loads(result.stdout) == {
        "run": str(trained),
        "first_step": verification.first_step,
        "last_step": verification.last_step,
        "num_checkpoints": verification.num_checkpoints,
        "num_rows": verification.num_rows,
        "with_test": True,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"training.per_example": {"statistics": True, "clip": 1.0}},
        PRIVATE | {"training.privacy": {"source": "seeded", "noise_multiplier": 1.0, "delta": 1e-3}},
        {"training.stop_early": {"patience": 1}, "logging": {"evaluate_every_steps": 4}, "training.epochs": 8},
        {"training.augment": {"shift": 2}, "training.kernels": "loops", "training.dtype": "float64"},
    ],
    ids=["clipping and statistics", "seeded privacy", "early stopping", "augmentation, in float64"],
)
def test_runs_of_all_kinds_are_verified(call_partrain: Call, tmp_path: Path, changes: dict[str, Any]) -> None:
    run = train_small(tmp_path, {"training.epochs": 2} | changes)
    result = call_partrain("verify", run, "--workers", 0, "--all", "-q")
    assert result.exit_code == 0, result
    assert re.match(r"verified: steps 0 to \d+, .* the test result: same bits$", result.stdout)


def test_run_that_was_resumed_with_other_settings_is_verified(call_partrain: Call, run: Path) -> None:
    changes = ("--set", "logging.every_steps=3", "--set", "logging.evaluate_every_steps=4")
    assert call_partrain("resume", run, "--epochs", 4, "--workers", 0, "-q", *changes).exit_code == 0
    result = call_partrain("verify", run, "--workers", 0, "--all", "-q")
    assert (result.exit_code, result.stdout[:30]) == (0, "verified: steps 0 to 40, 4 che"), result


def test_run_that_began_with_other_parameters_is_verified_from_a_checkpoint(
    call_partrain: Call, small_config: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "successor"
    config = small_config({"training.epochs": 3, "checkpoints": {"keep_last": 2, "keep_best": False}})
    words = ("--config", config, "--init-from", trained, "--run-dir", run, "--workers", 0, "-q")
    assert call_partrain(*words).exit_code == 0
    assert call_partrain("verify", run, "--workers", 0, "-q").exit_code == 0
    assert "start from a later step with --from, for example --from 20" in refusal(
        call_partrain, run, "--all", exit_code=2
    )


def test_start_with_other_parameters_than_those_of_the_seed_is_found(
    call_partrain: Call, small_config: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "successor"
    config = small_config({"training.epochs": 1})
    words = ("--config", config, "--init-from", trained, "--run-dir", run, "--workers", 0, "-q")
    assert call_partrain(*words).exit_code == 0
    result = call_partrain("verify", run, "--workers", 0, "--all", "-q")
    assert (result.exit_code, result.stdout[:22]) == (0, "verified: steps 0 to 1"), result
    record = json.loads((run / "run.json").read_text())
    del record["initialised_from"]
    (run / "run.json").write_text(json.dumps(record))
    first = CheckpointDirectory(run / "checkpoints").path_of(0)
    assert refusal(call_partrain, run, "--all").startswith(f"error: {first}: conv1.bias[0]: is ")


def test_every_changed_bit_of_a_checkpoint_is_found(call_partrain: Call, run: Path) -> None:
    rng = np.random.default_rng(0)
    path = CheckpointDirectory(run / "checkpoints").path_of(30)
    whole = path.read_bytes()
    for _ in range(5):
        name, index = flip_a_bit(path, rng)
        message = refusal(call_partrain, run)
        assert message.startswith(f"error: {path}: {name}{index}: is "), message
        assert "np." not in message, "numbers are not printed as NumPy types"
        path.write_bytes(whole)


@pytest.mark.slow
def test_a_hundred_changed_bits_are_found(call_partrain: Call, run: Path) -> None:
    rng = np.random.default_rng(1)
    checkpoints = CheckpointDirectory(run / "checkpoints")
    for _ in range(100):
        path = checkpoints.path_of(int(rng.choice([10, 20, 30])))
        whole = path.read_bytes()
        flip_a_bit(path, rng)
        assert f"error: {checkpoints.path}" in refusal(call_partrain, run, "--all")
        path.write_bytes(whole)


def test_every_changed_line_of_metrics_is_found(call_partrain: Call, run: Path) -> None:
    path = run / "metrics.jsonl"
    whole = path.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    last = [k for k, row in enumerate(rows) if row["step"] > 20]
    for k in last:
        for name in rows[k].keys() - {"step", "time_s", "examples_per_s"}:
            changed = "0" * 64 if name == "parameters_sha256" else rows[k][name] + 1e-9
            edit_metrics(run, lambda content, k=k, name=name, changed=changed: content[k].update({name: changed}))
            message = refusal(call_partrain, run)
            assert message.startswith(f"error: {path}: step {rows[k]['step']}: {name} is "), message
            path.write_bytes(whole)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows.pop(), "step 30: a line with validation/loss, validation/accuracy is missing"),
        (lambda rows: rows.append({"step": 30, "lr": 0.5}), "step 30: training makes no line with lr here"),
        (lambda rows: rows.insert(-3, {"step": 29, "lr": 0.5}), "step 29: training makes no line with lr here"),
        (lambda rows: rows.append({"step": 31}), "has metrics of step 31, but the training ended at step 30"),
    ],
    ids=["lost", "added at the end", "added before", "added after the end"],
)
def test_line_of_metrics_that_was_lost_or_added_is_found(
    call_partrain: Call, run: Path, edit: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    edit_metrics(run, edit)
    assert refusal(call_partrain, run) == f"error: {run / 'metrics.jsonl'}: {message}"


def test_changed_results_and_metadata_are_found(call_partrain: Call, run: Path) -> None:
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    for name, value, message in (
        ("parameters_sha256", "0" * 64, f'parameters_sha256 is "{"0" * 64}", recomputed '),
        ("steps", 31, "steps is 31, recomputed 30"),
        ("test", summary["test"] | {"accuracy": 2.0}, "test: accuracy is 2.0, recomputed "),
        ("best", summary["best"] | {"step": 1}, "best: step is 1, recomputed "),
        ("final", summary["final"] | {"train/loss": 0.0}, "final: train/loss is 0.0, recomputed "),
    ):
        path.write_text(json.dumps(summary | {name: value}))
        assert refusal(call_partrain, run).startswith(f"error: {path}: {message}")
    path.write_text(json.dumps(summary))
    checkpoint = CheckpointDirectory(run / "checkpoints").path_of(30)
    state = load(checkpoint)
    checkpoint.write_bytes(encode(Checkpoint(state.tensors, state.metadata | {"seed": 5})))
    assert refusal(call_partrain, run) == f"error: {checkpoint}: seed is 5, recomputed 0"
    fewer = {name: tensor for name, tensor in state.tensors.items() if name != "conv1.bias"}
    for tensors, message in (
        (fewer, "conv1.bias: is missing"),
        (state.tensors | {"conv9.bias": np.zeros(1)}, "conv9.bias: is no tensor of this run"),
    ):
        checkpoint.write_bytes(encode(Checkpoint(tensors, state.metadata)))
        assert refusal(call_partrain, run) == f"error: {checkpoint}: {message}"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert "is truncated or altered" in refusal(call_partrain, run)
    with pytest.raises(VerificationFailed, match="is truncated or altered"):
        partrain.open_run(run, quiet=True).verify(workers=0)


def test_run_with_secret_noise_cannot_be_verified(call_partrain: Call, tmp_path: Path) -> None:
    run = train_small(tmp_path, PRIVATE | {"training.max_steps": 2})
    assert "secret random source" in refusal(call_partrain, run, exit_code=2)


def test_range_that_the_run_does_not_have_is_refused(call_partrain: Call, trained: Path) -> None:
    assert "--to 31: the newest checkpoint" in refusal(call_partrain, trained, "--to", 31, exit_code=2)
    assert "--from 30: is not before" in refusal(call_partrain, trained, "--from", 30, exit_code=2)


@pytest.mark.slow
@needs_mpi
def test_ranks_verify_a_run(run_partrain: Call, run: Path) -> None:
    with isolated_jobs() as environment:
        words = ("verify", run, "--all", "--engine", "mpi", "--workers", 1)
        options: dict[str, Any] = {"wrapper": mpiexec(2), "env": environment}
        result = run_partrain(*words, **options)
        expected = "verified: steps 0 to 30, 3 checkpoints, 24 lines of metrics, the test result: same bits\n"
        assert (result.exit_code, result.stdout) == (0, expected), result
        flip_a_bit(CheckpointDirectory(run / "checkpoints").path_of(20), np.random.default_rng(0))
        result = run_partrain(*words, **options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count(", recomputed ") == 1, result


FIND_CHANGES = {
    "training.epochs": 8,
    "checkpoints": {"digests": 2, "keep_last": 9, "every_steps": 10},
    "logging": {"every_steps": 100, "evaluate_every_epochs": None},
}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run of 80 steps with 8 checkpoints."""
    return train_small(tmp_path_factory.mktemp("long"), FIND_CHANGES)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another seed."""
    return train_small(tmp_path_factory.mktemp("wrong"), FIND_CHANGES | {"seed": 1})


def continue_wrongly(run: Path, step: int, wrong: Path) -> None:
    """Replace a run's files of the steps after `step` by those of a run that computed otherwise."""
    rows = [json.loads(line) for line in (wrong / "metrics.jsonl").read_text().splitlines()]
    edit_metrics(
        run,
        lambda kept: kept.__setitem__(
            slice(None), [r for r in kept if r["step"] <= step] + [row for row in rows if row["step"] > step]
        ),
    )
    for path in (wrong / "checkpoints").iterdir():
        if load(path).step > step:
            shutil.copy(path, run / "checkpoints")


@pytest.mark.parametrize("step", [0, 10, 20, 30, 40, 50, 60, 70])
def test_first_wrong_step_is_found_by_bisection(
    call_partrain: Call, long: Path, wrong: Path, tmp_path: Path, step: int
) -> None:
    run = Path(shutil.copytree(long, tmp_path / "run"))
    continue_wrongly(run, step, wrong)
    result = call_partrain("verify", run, "--find", "--workers", 0)
    assert result.exit_code == 1
    assert f"the first wrong step is one of {step + 1} to {step + 2}: " in result.stderr
    assert result.stderr.count("computing steps") <= 4  # of 8 ranges


def test_bisection_tells_a_wrong_checkpoint_from_wrong_steps(call_partrain: Call, long: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(long, tmp_path / "run"))
    path = CheckpointDirectory(run / "checkpoints").path_of(50)
    flip_a_bit(path, np.random.default_rng(0))
    message = refusal(call_partrain, run, "--find")
    assert f"error: the steps to 50 are right, but not what was saved after them: {path}: " in message


def test_bisection_that_finds_nothing_says_what_it_computed(call_partrain: Call, long: Path) -> None:
    result = call_partrain("verify", long, "--find", "--workers", 0, "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "found nothing wrong: computed 3 of 8 ranges of steps again (41 to 50, 61 to 70, 71 to 80): same bits; a "
        "single wrong range among the others can escape; --all computes every step\n"
    )
    found = json.loads(call_partrain("verify", long, "--find", "--to", 40, "--json", "--workers", 0, "-q").stdout)
    assert (found["num_ranges"], found["verified"][-1]) == (4, [30, 40])
