"""Damaged and deleted files of a run, and disks that are full: what a resume accepts, and what it refuses."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partrain.errors import RunError
from partrain.store.metrics_log import cut_back, read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system import durable_files
from partrain.training.run_record import read_record
from tests.program import Result
from tests.whole_runs import Runs, edit_json, outcome, read_json, write_config

# ---- damaged checkpoints


def saved(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_damaged_checkpoint_is_named_and_skipped(killed: Path, runs: Runs, undisturbed: Path, damage: str) -> None:
    newest = saved(killed)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": content[:-9], "altered": content, "empty": b""}[damage])
    result = runs.resume(killed)
    assert re.search(rf"^warning: .*{newest.name}: is truncated.* It is skipped\.$", result.stderr, re.MULTILINE)
    assert "resumed from step 10" in result.stderr
    assert outcome(killed) == outcome(undisturbed)


def test_no_good_checkpoint_is_an_error(killed: Path, runs: Runs) -> None:
    for path in saved(killed):
        path.write_bytes(path.read_bytes()[:-1])
    result = runs.resume(killed)
    assert "has no good checkpoint" in result.refusal
    assert result.stderr.count("is skipped") == len(saved(killed))


def test_deleted_checkpoints_are_an_error(completed: Path, runs: Runs) -> None:
    for path in saved(completed):
        path.unlink()
    assert "has no good checkpoint" in runs.resume(completed).refusal


# ---- full and failing disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("is_last", [False, True], ids=["a save", "everything at the end"])
def test_save_that_fails_is_a_warning_and_at_the_end_an_error(
    call_partrain: Callable[..., Result],
    runs: Runs,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    is_last: bool,
) -> None:
    write, failed = durable_files._write_and_sync, []

    def failing(path: Path, data: bytes) -> None:
        if ("step-00000020" if is_last else "step-00000008") in path.name or (is_last and failed):
            failed.append(path)
            path.write_bytes(data[: len(data) // 2])
            raise OSError(code, os.strerror(code))
        write(path, data)

    run = runs.folder / "run"
    config = write_config(runs.folder)
    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "_write_and_sync", failing)
        result = call_partrain("--config", config, "--run-dir", run, "--workers", 0)
    assert os.strerror(code) in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    if is_last:
        assert result.exit_code == 1
        assert "step 20 could not be saved" in result.stderr[result.stderr.index("error: ") :]
        assert RunDirectory.open(run).status() == "interrupted"  # not even that could be written
        assert runs.resume(run).exit_code == 0
    else:
        assert result.exit_code == 0
        assert "warning: step 8 could not be saved" in result.stderr
    assert outcome(run) == outcome(undisturbed)


# ---- edited files


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("key", ["status", "command_lines", "data", "identity", "horizon", "lineage", "versions"])
def test_record_without_a_required_entry_is_an_error(killed: Path, runs: Runs, key: str) -> None:
    edit_json(killed / "run.json", lambda record: record.pop(key))
    assert f"run.json: is damaged: {key}: " in runs.resume(killed).refusal


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_edited_record_is_accepted_or_refused(undisturbed: Path, tmp_path: Path, data: st.DataObject) -> None:
    record = read_json(undisturbed / "run.json")
    key = data.draw(st.sampled_from(sorted(record)))
    content = json.dumps(record | {key: data.draw(json_values)}).encode()
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        content = content[:place] + data.draw(st.binary(max_size=3)) + content[place + 1 :]
    (tmp_path / "run.json").write_bytes(content)
    run = RunDirectory.open(tmp_path)
    with contextlib.suppress(RunError):
        record = read_record(run)
        assert run.status() in (record["status"], "interrupted")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.binary(max_size=30) | json_values.map(lambda value: json.dumps(value).encode()), max_size=4))
def test_edited_metrics_are_read_or_refused_and_can_be_cut_back(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([b'{"step":1}', *lines]))
    with contextlib.suppress(RunError):
        assert all(isinstance(row, dict) for row in read_metrics(path))
    cut_back(path, 5)
    assert all(row["step"] <= 5 for row in read_metrics(path))
    for left in tmp_path.glob("metrics.cut-*"):
        left.unlink()


def test_invalid_metrics_and_summary_do_not_stop_a_resume(killed: Path, runs: Runs, undisturbed: Path) -> None:
    odd = [
        '{"step":1,"time_s":"yesterday","train/loss":[]}',
        '{"step":2,"time_s":1e400}',
        '{"step":null}',
        "\xff",
        "[]",
    ]
    (killed / "metrics.jsonl").write_text("\n".join([*odd, ""]))
    (killed / "summary.json").write_text('{"format":1,"steps":12,"train_seconds":null}')
    result = runs.resume(killed)
    assert result.exit_code == 0, result
    summaries = [read_json(run / "summary.json") for run in (killed, undisturbed)]
    assert summaries[0]["parameters_sha256"] == summaries[1]["parameters_sha256"]
