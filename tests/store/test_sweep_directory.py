from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_lookup import find_run
from partrain.store.sweep_directory import Axis, SweepDirectory, SweepRecord, Trial
from partrain.store.sweep_paths import trial_name
from tests.store.new_runs import python


def record_of(num_trials: int) -> SweepRecord:
    lr = "training.optimizer.lr"
    return SweepRecord(
        kind="sweep",
        command_lines=[["partrain", "sweep"]],
        started="2026-11-28T03:00:00.000+00:00",
        config={"name": "mnist"},
        axes=[Axis(key=lr, values=[number / 100 for number in range(1, num_trials + 1)])],
        seeds=[0],
        objective="validation/accuracy",
        num_trials=num_trials,
        trials=[
            Trial(number=number, run=trial_name(number), settings={lr: number / 100}, seed=0, setting=number)
            for number in range(1, num_trials + 1)
        ],
    )


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDirectory:
    """Return a sweep of three trials, of which the first is complete and the second was killed."""
    sweep = SweepDirectory(tmp_path / "20261128-030000-mnist-sweep")
    with sweep.locked():
        sweep.write(record_of(3))
        for number, status in ((1, "completed"), (2, "running")):
            RunDirectory.create_at(sweep.path / trial_name(number)).write_run_json({"status": status})
    return sweep


def test_the_record_is_read_as_it_was_written(sweep: SweepDirectory) -> None:
    assert SweepDirectory.open(sweep.path).read() == record_of(3)


def test_the_status_of_a_trial_is_that_of_its_run(sweep: SweepDirectory) -> None:
    record = sweep.read()
    assert [sweep.trial_status(trial) for trial in record.trials] == ["completed", "interrupted", "waiting"]
    assert sweep.trial_status(record.trials[1].model_copy(update={"pruned": True})) == "pruned"
    with RunDirectory.open(sweep.path / trial_name(2)).lock():
        assert sweep.trial_status(record.trials[1]) == "running"


def test_a_damaged_record_is_reported(sweep: SweepDirectory) -> None:
    content = json.loads(sweep.record_path.read_text())
    content["trials"][1]["run"] = "../../elsewhere"
    sweep.record_path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"sweep.json: is damaged: trials.1.run: .*is not the name of a trial"):
        sweep.read()
    sweep.record_path.write_text(json.dumps(content | {"format": 9}))
    with pytest.raises(RunError, match="format 9"):
        sweep.read()


def test_a_directory_of_something_else_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="exists already, and is not a sweep"), SweepDirectory(tmp_path).locked():
        pass
    with pytest.raises(RunError, match="is not a sweep"):
        SweepDirectory.open(tmp_path)


HOLDER = """
import os, sys
from pathlib import Path
from partrain.store.sweep_directory import SweepDirectory
with SweepDirectory(Path(sys.argv[1])).locked():
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    print("locked", flush=True)
    os.waitpid(child, 0)
"""


def locking_process(sweep: SweepDirectory) -> subprocess.Popen[str]:
    process = python(HOLDER, sweep.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_process_is_refused(sweep: SweepDirectory) -> None:
    process = locking_process(sweep)
    message = f"process {process.pid} on {socket.gethostname()} is writing into this sweep"
    with pytest.raises(RunError, match=message), SweepDirectory(sweep.path).locked():
        pass
    process.communicate("")


def test_the_trainings_of_a_killed_sweep_are_waited_for(sweep: SweepDirectory) -> None:
    process = locking_process(sweep)
    process.kill()
    process.wait()
    assert sweep.holder() is not None  # its child still runs
    assert process.stdin is not None
    process.stdin.close()
    with SweepDirectory(sweep.path).locked():
        assert sweep.holder() == {"host": socket.gethostname(), "pid": os.getpid()}
    assert process.stdout is not None
    process.stdout.close()


def test_last_is_never_a_run_of_a_sweep_whose_runs_have_names(sweep: SweepDirectory) -> None:
    runs_dir = sweep.path.parent
    RunDirectory.create_at(runs_dir / "older").write_run_json({"status": "completed", "started": "2026-01-01"})
    assert find_run("last", runs_dir) == runs_dir / "older"
    assert find_run(f"{sweep.path.name}/trial-001", runs_dir) == sweep.path / "trial-001"
    with pytest.raises(RunError, match=r"is a sweep, not a run. Name one of its runs, such as .*trial-001"):
        RunDirectory.open(find_run(sweep.path.name, runs_dir))
