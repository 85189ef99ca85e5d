from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.errors import RunError
from partrain.store.metrics_log import MetricsLog, cut_back, read_good_metrics, read_metrics
from tests.store.file_faults import fault_at_call, recorded_calls


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    log = MetricsLog(path)
    for row in rows:
        log.append(row)
    log.close()


def steps(path: Path) -> list[int]:
    return [row["step"] for row in read_metrics(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_rows_are_read_back_and_a_reopened_log_continues(path: Path) -> None:
    rows = [{"step": 1, "train/loss": 2.3, "lr": 1e-3}, {"step": 1, "validation/accuracy": 0.5, "note": None}]
    write_rows(path, rows[0])
    write_rows(path, rows[1])
    assert read_metrics(path) == rows


def test_a_row_is_one_write_and_is_synced_by_flush(path: Path) -> None:
    log = MetricsLog(path)
    with recorded_calls() as calls:
        log.append({"step": 1})
    assert calls.names == ["write"]
    with recorded_calls() as calls:
        log.flush_durably()
    assert calls.names == ["fsync"]
    log.close()


def test_non_finite_floats_are_strict_json_and_are_read_back_as_floats(path: Path) -> None:
    write_rows(path, {"step": 1, "loss": math.nan, "norms": [math.inf, -math.inf]})

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": "NaN", "norms": ["Infinity", "-Infinity"]}
    (row,) = read_metrics(path)
    assert math.isnan(row["loss"])
    assert row["norms"] == [math.inf, -math.inf]


@settings(deadline=None, max_examples=30)
@given(
    row=st.dictionaries(
        st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=4
    ).filter(lambda row: not {"NaN", "Infinity", "-Infinity"} & set(row.values()))
)
def test_any_row_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any-row.jsonl"
    path.unlink(missing_ok=True)
    write_rows(path, row)
    assert read_metrics(path) == [row]
    assert path.read_bytes().count(b"\n") == 1


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(-2, 5))
def test_any_bytes_are_read_or_refused_and_can_be_cut_back(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, step: int
) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    path = folder / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n' + data)
    with contextlib.suppress(RunError):
        assert read_metrics(path)[0] == {"step": 1}
    cut_back(path, step)
    assert all(row["step"] <= step for row in read_metrics(path))
    assert steps(path)[:1] == ([1] if step >= 1 else [])


def test_an_incomplete_last_line_is_skipped_at_every_length(path: Path) -> None:
    write_rows(path, {"step": 1, "loss": 0.25}, {"step": 2, "loss": 0.125})
    data = path.read_bytes()
    first_length = data.index(b"\n") + 1
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert steps(path) == ([1] if length >= first_length else [])


def test_a_missing_file_has_no_rows_and_nothing_to_cut(path: Path) -> None:
    assert read_metrics(path) == []
    assert cut_back(path, 5) == 0
    assert not path.exists()


def test_a_damaged_line_in_the_middle_is_named(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"st\n{"step":3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_metrics(path)


def test_a_failed_append_leaves_no_part_of_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(path)
    log.append({"step": 1})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
        with pytest.raises(OSError, match="wrote 5 of") as caught:
            log.append({"step": 2})
    assert caught.value.errno == errno.ENOSPC
    log.append({"step": 3})
    log.close()
    assert steps(path) == [1, 3]


def test_cut_back_keeps_the_bytes_up_to_the_step_and_moves_the_other_rows(path: Path) -> None:
    kept, cut = b'{"step": 1, "lr":1e-3}\n{"step":2}\n{"step":2,"loss":"NaN"}\n', b'{"step":3}\n{"step":4}\n'
    path.write_bytes(kept + cut + b'{"step":5,"lo')
    assert cut_back(path, 2) == 2
    assert path.read_bytes() == kept
    assert (path.parent / "metrics.cut-1.jsonl").read_bytes() == cut
    write_rows(path, {"step": 3})
    assert steps(path) == [1, 2, 2, 3]
    assert cut_back(path, 0) == 4
    assert path.read_bytes() == b""
    assert steps(path.parent / "metrics.cut-2.jsonl") == [1, 2, 2, 3]


def test_cut_back_deletes_an_incomplete_line_and_writes_no_second_file(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"step":2}')
    assert cut_back(path, 5) == 0
    assert path.read_bytes() == b'{"step":1}\n'
    assert os.listdir(path.parent) == ["metrics.jsonl"]


def test_a_damaged_line_before_an_incomplete_one_is_named(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"st\n{"step\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_metrics(path)


def test_good_rows_are_read_around_damaged_lines(path: Path) -> None:
    path.write_bytes(b'{"step":1}\nnot JSON\n[3]\n{"step":4,"a":"NaN"}\n{"step":5')
    rows, damaged = read_good_metrics(path)
    assert [row["step"] for row in rows] == [1, 4]
    assert math.isnan(rows[1]["a"])
    assert damaged == [2, 3]


def test_cut_back_moves_damaged_lines(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n\0\0\0\n[2]\n{"loss":1}\n{"step":2}\n')
    assert cut_back(path, 2) == 3
    assert steps(path) == [1, 2]
    assert (path.parent / "metrics.cut-1.jsonl").read_bytes() == b'\0\0\0\n[2]\n{"loss":1}\n'


def test_cut_back_without_anything_to_cut_writes_nothing(path: Path) -> None:
    write_rows(path, {"step": 1})
    with recorded_calls() as calls:
        assert cut_back(path, 1) == 0
    assert calls.names == []


def test_no_row_is_lost_when_cut_back_fails_at_any_call(path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    for number in range(1, 17):
        for file in path.parent.iterdir():
            file.unlink()
        write_rows(path, {"step": 1}, {"step": 2}, {"step": 3})
        with fault_at_call(number, fail), pytest.raises(OSError, match="Input/output"):
            cut_back(path, 1)
        assert steps(path) in ([1, 2, 3], [1])
        cut = path.parent / "metrics.cut-1.jsonl"
        assert steps(path) == [1, 2, 3] or steps(cut) == [2, 3]
        assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]
