"""Whole runs for tests that disturb them: a small configuration, and what must be equal however it was disturbed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import partrain
from partrain.interface.command_line import main
from partrain.store.run_directory import RunDirectory
from partrain.system import fault_injection
from tests.program import RUN_SECONDS, Result
from tests.small_run import write_small_config

# Two epochs, 20 steps: evaluations and saves fall on steps of their own and together. What is random differs in each;
# logged steps measure the gradients of single examples, the others do not. With this seed the evaluation of step 14 is
# not the best so far, so that nothing is saved there.
CHANGES: dict[str, Any] = {
    "seed": 5,
    "training.epochs": 2,
    "training.augment": {"shift": 2, "rotation": 10, "scale": 0.1, "elastic": {"alpha": 20, "sigma": 4}},
    "training.per_example": {"statistics": True},
    "network": [
        {"conv": {"filters": 2, "kernel": 5}},
        "relu",
        {"max_pool": {"window": 4}},
        "flatten",
        {"dropout": {"rate": 0.3}},
        {"dense": {"units": 10}},
    ],
    "logging": {"every_steps": 3, "evaluate_every_steps": 7},
    "checkpoints": {"every_steps": 4},
    "workers": {"max_restarts": 1000},
}
# Times are all that may differ.
TIMES = ("time_s", "examples_per_s")


def write_config(folder: Path, more: dict[str, Any] | None = None) -> Path:
    """Write the configuration, with more changes by dotted key."""
    return write_small_config(folder, CHANGES | (more or {}))


def points_of(process: str) -> list[str]:
    """Return the kill points of the coordinator, or of the worker, as the sources name them."""
    sources = "".join(path.read_text() for path in sorted(Path(partrain.__file__).parent.rglob("*.py")))
    return re.findall(rf'kill_point\("({process}: [^"]+)"\)', sources)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Return the metrics without what is a time."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def outcome(run: Path) -> dict[str, Any]:
    """Return what must be the same, however a completed run was disturbed."""
    assert RunDirectory.open(run).status() == "completed"
    summary = read_json(run / "summary.json")
    final = {name: value for name, value in summary["final"].items() if name not in TIMES}
    same = ("steps", "epochs", "examples", "best", "test", "parameters_sha256")
    newest = max((run / "checkpoints").iterdir())
    return {
        **{name: summary[name] for name in same},
        "final": final,
        "metrics": rows_of(run),
        "newest checkpoint": (newest.name, newest.read_bytes()),
        "files": {path.name for path in run.iterdir() if ".cut-" not in path.name},
    }


class Child:
    """The program in a fork of this process, without workers: quick to start, and to be killed at any point.

    Parameters
    ----------
    folder : where it runs.
    arguments : the command line after `partrain`.
    kill_at : what the variable of the kill switch would say.
    """

    def __init__(self, folder: Path, arguments: Sequence[object], kill_at: str | None = None) -> None:
        number = len(list(folder.glob("child-*.out")))
        self._said = [folder / f"child-{number}.{kind}" for kind in ("out", "err")]
        for path in self._said:
            path.write_text("")
        self.pid = os.fork()
        if self.pid == 0:
            self._run([str(argument) for argument in arguments], folder, kill_at)

    def _run(self, arguments: list[str], folder: Path, kill_at: str | None) -> None:
        exit_code = 70
        try:
            for path, descriptor in zip(self._said, (1, 2), strict=True):
                os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
            sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
            os.chdir(folder)
            fault_injection._wanted = kill_at
            exit_code = main(arguments)
            sys.stdout.flush()
        except SystemExit as ending:
            exit_code = int(ending.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(exit_code)

    @property
    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return self._said[1].read_text()

    def has_ended(self) -> bool:
        """Tell whether it has ended; it is still to be waited for."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def wait(self) -> Result:
        """Return how it ended; a negative exit code is a signal's."""
        deadline = time.monotonic() + RUN_SECONDS
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGABRT)
                pytest.fail("the program hangs")
            time.sleep(0.002)
        out, err = (path.read_text() for path in self._said)
        return Result(os.waitstatus_to_exitcode(ended[1]), out, err)


class Runs:
    """Runs of the small configuration in a folder of their own, without workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: object, kill_at: str | None = None) -> Child:
        """Start the program, with no workers."""
        return Child(self.folder, [*arguments, "--workers", 0], kill_at)

    def call(self, *arguments: object, kill_at: str | None = None) -> Result:
        """Run the program to its end, with no workers."""
        return self.start(*arguments, kill_at=kill_at).wait()

    def train_undisturbed(self, changes: dict[str, Any] | None = None) -> Path:
        """Train in this process, which then has loaded the kernels for all children; return the run's directory."""
        arguments = ("--config", write_config(self.folder, changes), "--runs-dir", self.folder / "runs")
        assert main([*map(str, arguments), "--workers", "0", "-q"]) == 0
        (run,) = (self.folder / "runs").iterdir()
        return run

    def train(self, changes: dict[str, Any] | None = None, *, name: str = "run", kill_at: str | None = None) -> Path:
        """Train to whatever end; return the run's directory."""
        run = self.folder / "runs" / name
        self.call("--config", write_config(self.folder, changes), "--run-dir", run, kill_at=kill_at)
        return run

    def resume(self, run: Path, *arguments: object, kill_at: str | None = None) -> Result:
        """Resume a run."""
        return self.call("resume", run, *arguments, kill_at=kill_at)


def count_passings(run_program: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return how often each kill point is passed while `run_program` runs in this process."""
    counts: dict[str, int] = {}

    def count(name: str, wanted: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    with monkeypatch.context() as patch:
        patch.setattr(fault_injection, "_wanted", "")
        patch.setattr(fault_injection, "_pass", count)
        run_program()
    return counts
