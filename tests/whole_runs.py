"""Whole runs for tests that disturb them: a small configuration, and the results that no disturbance may change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import partrain
from partrain.kernels.bits_version import BITS_FIELD
from partrain.store.checkpoint import Checkpoint, encode, load
from partrain.store.run_directory import RunDirectory
from partrain.system import fault_injection
from tests.program import PartrainProcess, Result
from tests.small_run import write_small_config

# Two epochs, 20 steps. Some evaluations and saves fall on the same step, others do not. Each epoch has other random
# images; only logged steps measure the gradients of single examples. With this seed the evaluation of step 14 is not
# the best so far, and nothing is saved there.
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
# Long enough to be disturbed: 400 steps.
LONG: dict[str, Any] = {"training.epochs": 40, "checkpoints": {"every_steps": 45}}
# Step 15 is done; the newest checkpoint is that of step 12.
IN_MID_EPOCH = "coordinator: before a step|16"
# Only times may differ.
TIMES = ("time_s", "examples_per_s")


def write_config(folder: Path, more: dict[str, Any] | None = None) -> Path:
    """Write the configuration, with more changes by dotted key."""
    return write_small_config(folder, CHANGES | (more or {}))


def points_of(process: str) -> list[str]:
    """Return the kill points of the coordinator, or of the worker, in the order of the sources."""
    sources = "".join(path.read_text() for path in sorted(Path(partrain.__file__).parent.rglob("*.py")))
    return re.findall(rf'kill_point\("({process}: [^"]+)"\)', sources)


def saved_steps(run: Path) -> list[int]:
    """Return the steps of a run's checkpoints."""
    return sorted(int(path.stem.partition("-")[2]) for path in (run / "checkpoints").iterdir())


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON object in its file."""
    content = read_json(path)
    edit(content)
    path.write_text(json.dumps(content))


def set_bits_version(run: Path, version: int | None) -> Path:
    """Let a run and its checkpoints have another version of the bits; None: no such field, as before there was one."""
    field = {} if version is None else {BITS_FIELD: version}

    def edited(content: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in content.items() if name != BITS_FIELD} | field

    (run / "run.json").write_text(json.dumps(edited(read_json(run / "run.json"))))
    for path in (run / "checkpoints").iterdir():
        state = load(path)
        path.write_bytes(encode(Checkpoint(state.tensors, edited(state.metadata))))
    return run


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Return the metrics without times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def outcome(run: Path) -> dict[str, Any]:
    """Return the results of a completed run that are the same however it was disturbed."""
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


class Runs:
    """Runs of the small configuration in a directory of their own, without workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: object, kill_at: str | None = None) -> PartrainProcess:
        """Start the program; it kills itself at the kill point `kill_at`."""
        words = [str(argument) for argument in (*arguments, "--workers", 0)]
        return PartrainProcess(words, self.folder, {fault_injection.VARIABLE: kill_at})

    def call(self, *arguments: object, kill_at: str | None = None) -> Result:
        """Run the program to its end."""
        return self.start(*arguments, kill_at=kill_at).wait()

    def train(self, changes: dict[str, Any] | None = None, *, name: str = "run", kill_at: str | None = None) -> Path:
        """Train until the end or the kill point; return the run's directory."""
        run = self.folder / "runs" / name
        result = self.call("--config", write_config(self.folder, changes), "--run-dir", run, kill_at=kill_at)
        assert kill_at or result.exit_code == 0, result
        return run

    def resume(self, run: Path, *arguments: object, kill_at: str | None = None) -> Result:
        """Resume a run."""
        return self.call("resume", run, *arguments, kill_at=kill_at)


# The program; at its end it writes how often it passed each kill point.
COUNT_PASSINGS = """
import json, sys
from collections import Counter
from partrain.interface.command_line import main
counts = Counter()
def count(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "kill_point":
        counts[frame.f_locals["name"]] += 1
sys.setprofile(count)
assert main() == 0
sys.setprofile(None)
json.dump(counts, sys.stderr)
"""


def count_passings(folder: Path) -> dict[str, int]:
    """Return how often an undisturbed run passes each kill point."""
    arguments = ["--config", str(write_config(folder)), "--workers", "0", "-q"]
    result = PartrainProcess(arguments, folder, code=COUNT_PASSINGS).wait()
    counts: dict[str, int] = json.loads(result.stderr)
    assert counts
    return counts
