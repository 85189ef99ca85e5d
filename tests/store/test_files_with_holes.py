"""A file of a run can have a hole of any size, which takes no disk; it is not read into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.config.reader import MAX_BYTES, read_mapping
from partrain.errors import ConfigError, RunError
from partrain.store.metrics_log import read_metrics
from partrain.store.run_documents import read_document
from tests.program import Result
from tests.saved_runs import write_saved_run

HOLE_BYTES = 2**42


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_saved_run(tmp_path / "runs/small", ["flatten", {"dense": {"units": 3}}], shape=(1, 8, 8))
    return tmp_path / "runs/small"


def test_documents_and_metrics_with_a_hole_are_refused(run: Path) -> None:
    for name in ("run.json", "metrics.jsonl"):
        os.truncate(run / name, HOLE_BYTES)
    with pytest.raises(RunError, match=r"run\.json: does not fit into memory"):
        read_document(run / "run.json")
    with pytest.raises(RunError, match=r"metrics\.jsonl: does not fit into memory"):
        read_metrics(run / "metrics.jsonl")


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "config.yaml", "summary.json"])
def test_runs_are_listed_beside_one_whose_file_has_a_hole(
    run: Path, call_partrain: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    write_saved_run(tmp_path / "runs/other", ["flatten", {"dense": {"units": 3}}], shape=(1, 8, 8))
    (run / name).touch()
    os.truncate(run / name, HOLE_BYTES)
    result = call_partrain("list", "--runs-dir", tmp_path / "runs", "--json")
    assert result.exit_code == 0
    assert "other" in {entry["name"] for entry in json.loads(result.stdout)}


def test_configuration_of_any_length_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\n")
    os.truncate(tmp_path / "x.yaml", HOLE_BYTES)
    with pytest.raises(ConfigError, match=f"x.yaml has more than {MAX_BYTES:,} bytes"):
        read_mapping(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="/dev/zero has more than"):
        read_mapping("/dev/zero")
