from __future__ import annotations

import csv
import io
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from partrain.analysis.export.metrics import events_name, metrics_csv, metrics_events
from partrain.errors import MissingPackage, RunError
from partrain.store.run_directory import RunDirectory
from tests.events_files import records_of
from tests.saved_runs import ROWS, STARTED, write_saved_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    write_saved_run(tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


def test_csv_has_a_row_for_each_line_and_a_column_for_each_name(run: RunDirectory) -> None:
    data, num_rows = metrics_csv(run)
    table = list(csv.DictReader(io.StringIO(data.decode())))
    assert num_rows == len(table) == len(ROWS)
    assert list(table[0]) == [
        "step",
        "epoch",
        "examples",
        "time_s",
        "train/loss",
        "lr",
        "validation/loss",
        "validation/accuracy",
    ]
    for row, expected in zip(table, ROWS, strict=True):
        there: dict[str, Any] = {name: float(text) for name, text in row.items() if text}
        assert there == pytest.approx(expected, rel=0, nan_ok=True)


def test_events_are_the_metrics_at_their_steps_and_times(run: RunDirectory) -> None:
    data, num_rows = metrics_events(run)
    version, *events = [Event.FromString(record) for record in records_of(data)]
    started = datetime.fromisoformat(STARTED).timestamp()
    assert (version.file_version, version.wall_time) == ("brain.Event:2", started)
    assert num_rows == len(events) == len(ROWS)
    for event, row in zip(events, ROWS, strict=True):
        assert event.step == row["step"]
        assert event.wall_time == started + row["time_s"]
        expected = {k: np.float32(v) for k, v in row.items() if k not in ("step", "epoch", "examples", "time_s")}
        assert {v.tag: v.simple_value for v in event.summary.value} == pytest.approx(expected, nan_ok=True, rel=0)


def test_event_file_always_has_the_same_name_which_tensorboard_reads(run: RunDirectory) -> None:
    assert events_name(run) == events_name(run) == "events.out.tfevents.1767323045.run"


@pytest.mark.parametrize("export", [metrics_csv, metrics_events])
def test_run_without_metrics_is_an_error(run: RunDirectory, export: Any) -> None:
    run.metrics_path.write_text("")
    with pytest.raises(RunError, match="has no metrics yet"):
        export(run)
    run.metrics_path.unlink()
    with pytest.raises(RunError, match="has no metrics yet"):
        export(run)


def test_missing_package_is_one_message_that_names_the_extra(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingPackage, match=r"^export to TensorBoard needs .* tensorboardX: .*partrain\[export\]'$"):
        metrics_events(run)


def test_csv_cells_that_a_spreadsheet_would_run_are_quoted(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://localhost/";"x")'
    hostile = {"+text": formula, "-text": "-1+1", "@name": "@SUM(A1)", "=n": "\t=1", "tab\t": "a\r=1"}
    numbers = {"number": -1.5, "text": "-1.5e-3", "plus": "+2"}
    write_saved_run(
        tmp_path / "hostile", rows=[{"step": 1, "epoch": 1.0, "examples": 4, "time_s": 1.5} | hostile | numbers]
    )
    data, _ = metrics_csv(RunDirectory.open(tmp_path / "hostile"))
    names, values = csv.reader(io.StringIO(data.decode(), newline=""))
    cells = dict(zip(names[4:], values[4:], strict=True))
    assert cells == {
        "'+text": f"'{formula}",
        "'-text": "'-1+1",
        "'@name": "'@SUM(A1)",
        "'=n": "\ufffd=1",
        "tab\ufffd": "a\ufffd=1",
        "number": "-1.5",
        "text": "-1.5e-3",
        "plus": "+2",
    }
