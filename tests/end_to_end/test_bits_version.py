"""Runs with another version of the bits: what can be done with them, and what is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import partrain
from partrain.errors import RunError
from partrain.kernels.bits_version import BITS_VERSION
from partrain.store.checkpoint import load
from tests.mpi_processes import isolated_jobs, mpiexec, needs_mpi
from tests.program import Result
from tests.whole_runs import Runs, edit_json, read_json, set_bits_version, write_config

Call = Callable[..., Result]
OTHER = pytest.mark.parametrize(
    ("version", "said"),
    [(None, "version 1"), (BITS_VERSION + 1, f"version {BITS_VERSION + 1}")],
    ids=["older", "newer"],
)


@pytest.fixture
def older(completed: Path) -> Path:
    """A completed run without a version of the bits."""
    return set_bits_version(completed, None)


def files_of(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_run_and_checkpoints_say_their_version(undisturbed: Path) -> None:
    assert read_json(undisturbed / "run.json")["bits"] == BITS_VERSION
    assert {load(path).metadata["bits"] for path in (undisturbed / "checkpoints").iterdir()} == {BITS_VERSION}


@OTHER
def test_unfinished_run_with_other_bits_is_not_resumed(
    killed: Path, runs: Runs, version: int | None, said: str
) -> None:
    before = files_of(set_bits_version(killed, version))
    refusal = runs.resume(killed).refusal
    assert (
        f"{killed}: was trained with {said} of the bits, and this partrain computes version {BITS_VERSION}" in refusal
    )
    assert f"use the partrain that trained it ({partrain.__version__})" in refusal
    assert f"--init-from {killed}" in refusal
    assert files_of(killed) == before


@OTHER
def test_completed_run_with_other_bits_is_not_trained_further(
    call_partrain: Call, completed: Path, version: int | None, said: str
) -> None:
    before = files_of(set_bits_version(completed, version))
    for words in ((), ("--epochs", 3)):
        assert said in call_partrain("resume", completed, "--workers", 0, *words).refusal
    with pytest.raises(RunError, match=said):
        partrain.open_run(completed, quiet=True).resume(epochs=3, workers=0)
    assert files_of(completed) == before


@OTHER
def test_run_with_other_bits_is_not_verified(
    call_partrain: Call, completed: Path, version: int | None, said: str
) -> None:
    set_bits_version(completed, version)
    for words in ((), ("--find",)):
        refusal = call_partrain("verify", completed, "--workers", 0, *words).refusal
        assert f"{completed}: was trained with {said} of the bits" in refusal
        assert "To verify the run, use the partrain that trained it" in refusal
    with pytest.raises(RunError, match=said):
        partrain.open_run(completed, quiet=True).verify(workers=0)


def test_checkpoint_with_other_bits_than_its_run_is_not_resumed(killed: Path, runs: Runs) -> None:
    set_bits_version(killed, None)
    edit_json(killed / "run.json", lambda record: record.update(bits=BITS_VERSION))
    assert "step-00000012.safetensors: belongs to a run with another version of the bits" in runs.resume(killed).refusal


@pytest.mark.parametrize("bits", [0, "2", 2.0, True, None, 2**31])
def test_version_that_is_none_is_named(killed: Path, runs: Runs, bits: object) -> None:
    edit_json(killed / "run.json", lambda record: record.update(bits=bits))
    assert "run.json: is damaged: bits: " in runs.resume(killed).refusal


@pytest.mark.slow
@needs_mpi
def test_ranks_do_not_resume_a_run_with_other_bits(run_partrain: Call, killed: Path) -> None:
    set_bits_version(killed, None)
    with isolated_jobs() as environment:
        options: dict[str, Any] = {"wrapper": mpiexec(2), "env": environment}
        result = run_partrain("resume", killed, "--engine", "mpi", "--workers", 0, **options)
    assert (result.exit_code, result.stdout) == (2, ""), result
    # Counted by its own words: mpiexec may add a note about an error of the job.
    assert result.stderr.count("was trained with version 1 of the bits") == 1, result


def test_older_run_is_evaluated_and_predicts(call_partrain: Call, older: Path, undisturbed: Path) -> None:
    assert call_partrain("evaluate", older, "--workers", 0, "-q").exit_code == 0
    assert (older / "evaluation-test.json").read_bytes() == (undisturbed / "evaluation-test.json").read_bytes()
    assert call_partrain("predict", older, "--index", 3, "--split", "test").exit_code == 0
    assert call_partrain("examples", older, "--top", 2).exit_code == 0


@pytest.mark.parametrize("name", ["model.safetensors", "model.npz", "metrics.csv"])
def test_older_run_is_exported(call_partrain: Call, older: Path, undisturbed: Path, tmp_path: Path, name: str) -> None:
    for folder, run in (("old", older), ("new", undisturbed)):
        (tmp_path / folder).mkdir()
        assert call_partrain("export", run, "--to", tmp_path / folder / name).exit_code == 0
    assert (tmp_path / "old" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def test_training_starts_from_the_parameters_of_an_older_run(
    call_partrain: Call, older: Path, undisturbed: Path, tmp_path: Path
) -> None:
    digests = []
    for number, run in enumerate((older, undisturbed)):
        new = tmp_path / str(number)
        words = ("--config", write_config(tmp_path), "--init-from", run, "--run-dir", new, "--workers", 0, "-q")
        assert call_partrain(*words).exit_code == 0
        assert read_json(new / "run.json")["bits"] == BITS_VERSION
        digests.append(read_json(new / "summary.json")["parameters_sha256"])
    assert digests[0] == digests[1]


def test_configuration_of_an_older_run_trains_anew(
    call_partrain: Call, older: Path, undisturbed: Path, tmp_path: Path
) -> None:
    words = ("--config", older / "config.yaml", "--run-dir", tmp_path / "anew", "--workers", 0, "-q")
    assert call_partrain(*words).exit_code == 0
    assert files_of(tmp_path / "anew" / "checkpoints") == files_of(undisturbed / "checkpoints")


def test_list_says_the_version_of_each_run(call_partrain: Call, older: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, older.parent / "newer")
    (older.parent / "broken").mkdir()
    listed = call_partrain("list", "--runs-dir", older.parent, "--json").stdout
    versions = {entry["name"]: entry["bits"] for entry in json.loads(listed)}
    assert versions == {older.name: 1, "newer": BITS_VERSION, "broken": None}


def test_comparison_says_that_versions_differ(call_partrain: Call, older: Path, undisturbed: Path) -> None:
    compared = call_partrain("compare", older, undisturbed).stdout
    assert f"the runs have different versions of the bits (A 1, B {BITS_VERSION})" in compared
    facts = json.loads(call_partrain("compare", older, undisturbed, "--json").stdout)
    assert {"key": "bits", "values": [1, BITS_VERSION]} in facts["surroundings"]
