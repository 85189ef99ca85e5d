from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from partrain.system import fault_injection
from tests.program import ROOT
from tests.whole_runs import points_of

PROGRAM = """
from partrain.system.fault_injection import kill_point
for number in range(5):
    kill_point("a place")
    kill_point("another place")
    print(number, flush=True)
"""


def ending(kill_at: str | None) -> tuple[int, str]:
    """Return the exit code of the program above, and the last number that it printed."""
    environment = {} if kill_at is None else {fault_injection.VARIABLE: kill_at}
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout.split()[-1]


@pytest.mark.parametrize(
    ("kill_at", "exit_code", "last"),
    [
        (None, 0, "4"),
        ("a place|4", -signal.SIGKILL, "2"),
        ("another place|2", -signal.SIGKILL, "0"),
        ("a place|9", 0, "4"),
        ("a place that is not there|1", 0, "4"),
    ],
)
def test_process_dies_at_the_passing_that_is_named(kill_at: str | None, exit_code: int, last: str) -> None:
    assert ending(kill_at) == (exit_code, last)


def test_of_several_processes_the_one_that_removes_the_file_dies(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    endings = [ending(f"a place|3|{token}") for _ in range(2)]
    assert endings == [(-signal.SIGKILL, "1"), (0, "4")]


def test_every_point_has_a_name_of_its_own() -> None:
    for process, least in (("worker", 6), ("coordinator", 18)):
        points = points_of(process)
        assert len(points) == len(set(points)) >= least
