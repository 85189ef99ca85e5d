from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from partrain.store.metrics_follower import MetricsFollower
from partrain.store.metrics_log import cut_back


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, steps: range, *, loss: float = 0.5) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps({"step": step, "train/loss": loss}) + "\n" for step in steps)


def steps_of(follower: MetricsFollower) -> list[Any]:
    return [row["step"] for row in follower.new_rows()]


def test_only_new_rows_are_read(path: Path) -> None:
    follower = MetricsFollower(path)
    assert steps_of(follower) == []
    for steps in (range(3), range(3, 5), range(5, 5), range(5, 20_000), range(20_000, 20_001)):
        write(path, steps)
        assert not follower.was_cut()
        assert steps_of(follower) == list(steps)


def test_an_incomplete_line_is_read_when_it_is_complete(path: Path) -> None:
    follower = MetricsFollower(path)
    write(path, range(1))
    with path.open("a") as file:
        file.write('{"step": 1, "tr')
        file.flush()
        assert steps_of(follower) == [0]
        assert steps_of(follower) == []
        file.write('ain/loss": 1}\n')
    assert steps_of(follower) == [1]


@pytest.mark.parametrize("grown_to", [12, 30, 60])
def test_rows_that_a_resume_cut_are_noticed_even_if_the_file_has_grown_again(path: Path, grown_to: int) -> None:
    follower = MetricsFollower(path)
    write(path, range(30))
    assert len(steps_of(follower)) == 30
    cut_back(path, 9)
    write(path, range(10, grown_to), loss=0.4)
    assert follower.was_cut()
    assert steps_of(follower) == list(range(grown_to))
    assert not follower.was_cut()


def test_a_removed_file_is_noticed(path: Path) -> None:
    follower = MetricsFollower(path)
    write(path, range(3))
    assert len(steps_of(follower)) == 3
    os.unlink(path)
    assert follower.was_cut()
    assert steps_of(follower) == []
    assert not follower.was_cut()


def test_damaged_lines_are_left_out(path: Path) -> None:
    path.write_bytes(b'{"step": 1}\n\xff\x00no row\n[3]\n\n' + b"x" * 3_000_000 + b'\n{"step": 2}\n')
    assert steps_of(MetricsFollower(path)) == [1, 2]


def test_a_pipe_does_not_block(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="seek"):
        steps_of(MetricsFollower(path))
