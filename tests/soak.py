"""Disturb runs at random for a given time, and compare what comes of them: `python tests/soak.py --minutes 30`.

Prints what was done, and how many runs ended with other bits than the undisturbed one. With `--ranks`, it kills ranks
of elastic MPI jobs. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.killed_ranks import kill_ranks
from tests.program import PartrainProcess
from tests.whole_runs import outcome, write_config

# About half a minute when nothing disturbs it: 3,000 steps in 30 epochs.
LONG: dict[str, Any] = {
    "data.train_examples": 2000,
    "training.epochs": 30,
    "logging": {"every_steps": 10, "evaluate_every_steps": 70},
    "checkpoints": {"every_steps": 45},
    "workers": {"max_restarts": 100_000},
}
# Hung workers are given up after 3 seconds and not 30, so that many of them fit into the time.
PROGRAM = """
import sys
try:
    from partrain.interface.command_line import main
    from partrain.parallel.workers import timeouts
except KeyboardInterrupt:
    sys.exit(130)
timeouts.MIN_SECONDS, timeouts.SAFETY_FACTOR = 3.0, 10.0
sys.exit(main())
"""
# How often a program is left alone after some faults, and how long it may then take: many times what is expected.
LEFT_ALONE = 0.2
HANG_SECONDS = 600.0
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A signal that comes before the program listens to it ends the interpreter.
EXIT_CODES = (0, -signal.SIGKILL, *(128 + number for number in STOPS), *(-number for number in STOPS))


def send(number: int, *pids: int) -> None:
    """Send a signal to processes that may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Disturber:
    """Does one thing at a time to a running program.

    Parameters
    ----------
    rng : decides what, to whom, and for how long.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.done: Counter[str] = Counter()
        self._faults: dict[Callable[[PartrainProcess], None], int] = {
            self.kill_a_worker: 12,
            self.kill_all_workers: 2,
            self.hang_a_worker: 1,
            self.pause_a_worker: 4,
            self.kill_the_fork_server: 4,
            self.kill_the_fork_server_and_a_worker: 3,
            self.pause_the_coordinator: 2,
            self.pause_the_group: 2,
            self.kill_the_coordinator: 5,
            self.kill_the_group: 2,
            self.stop_in_order: 3,
        }

    def disturb(self, process: PartrainProcess) -> None:
        """Do something."""
        (fault,) = self._rng.choices(list(self._faults), list(self._faults.values()))
        fault(process)
        self.done[fault.__name__.replace("_", " ")] += 1

    def _workers(self, process: PartrainProcess) -> list[int]:
        # Workers have the command of the fork server, whose child each one is until that is killed.
        entries = process.processes()
        return [e.pid for e in entries if "forkserver" in e.command and e.parent != process.popen.pid]

    def _children(self, process: PartrainProcess, kind: str) -> list[int]:
        entries = process.processes()
        return [e.pid for e in entries if e.parent == process.popen.pid and kind in e.command]

    def _some_worker(self, process: PartrainProcess) -> list[int]:
        return self._rng.sample(workers, 1) if (workers := self._workers(process)) else []

    def kill_a_worker(self, process: PartrainProcess) -> None:
        send(self._rng.choice((signal.SIGKILL, signal.SIGSEGV)), *self._some_worker(process))

    def kill_all_workers(self, process: PartrainProcess) -> None:
        send(signal.SIGKILL, *self._workers(process))

    def hang_a_worker(self, process: PartrainProcess) -> None:
        pids = self._some_worker(process)
        send(signal.SIGSTOP, *pids)
        # The fork server of a coordinator that has just ended looks like a worker, and nobody ends it if it is stopped.
        if process.popen.poll() is not None:
            send(signal.SIGCONT, *pids)

    def pause_a_worker(self, process: PartrainProcess) -> None:
        pids = self._some_worker(process)
        send(signal.SIGSTOP, *pids)
        time.sleep(self._rng.uniform(0, 1))
        send(signal.SIGCONT, *pids)

    def kill_the_fork_server(self, process: PartrainProcess) -> None:
        send(signal.SIGKILL, *self._children(process, "forkserver"))

    def kill_the_fork_server_and_a_worker(self, process: PartrainProcess) -> None:
        send(signal.SIGKILL, *self._children(process, "forkserver"), *self._some_worker(process))

    def pause_the_coordinator(self, process: PartrainProcess) -> None:
        send(signal.SIGSTOP, process.popen.pid)
        time.sleep(self._rng.uniform(0, 5))
        send(signal.SIGCONT, process.popen.pid)

    def pause_the_group(self, process: PartrainProcess) -> None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            send(number, *(entry.pid for entry in process.processes()))
            time.sleep(self._rng.uniform(0, 5) * (number == signal.SIGSTOP))

    def kill_the_coordinator(self, process: PartrainProcess) -> None:
        send(signal.SIGKILL, process.popen.pid)

    def kill_the_group(self, process: PartrainProcess) -> None:
        send(signal.SIGKILL, *(entry.pid for entry in process.processes()))

    def stop_in_order(self, process: PartrainProcess) -> None:
        number = self._rng.choice(STOPS)
        send(number, *(entry.pid for entry in process.processes()))


def run_disturbed(folder: Path, config: Path, disturber: Disturber, rng: random.Random) -> Path:
    """Train a run to its end, disturbed and resumed as often as it takes; return its directory."""
    run = folder / f"run-{len(list(folder.glob('run-*')))}"
    while True:
        new = not (run / "config.yaml").exists()
        words = ["--config", str(config), "--run-dir", str(run)] if new else ["resume", str(run)]
        process = PartrainProcess(
            [*words, "--workers", str(rng.randint(1, 4))], folder, program=[sys.executable, "-c", PROGRAM]
        )
        try:
            time.sleep(rng.uniform(0, 3))
            # A fault that makes it hang would be hidden by the next: so it is left alone once in a while.
            most_faults = rng.randint(1, 5) if rng.random() < LEFT_ALONE else math.inf
            num_faults = 0
            while process.popen.poll() is None and num_faults < most_faults:
                disturber.disturb(process)
                num_faults += 1
                time.sleep(rng.expovariate(1.5))
            result = process.wait(HANG_SECONDS)
        finally:
            process.kill()
        # A process that was just being born when the coordinator was killed may complain of that.
        has_failed = "Traceback" in result.stderr and result.exit_code != -signal.SIGKILL
        if result.exit_code not in EXIT_CODES or has_failed:
            raise SystemExit(f"exit code {result.exit_code}:\n{result.stderr}")
        if result.exit_code == 0:
            return run


def main() -> int:
    """Return 0 if all runs had the same bits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", action="store_true", help="kill ranks of elastic jobs (needs Open MPI 5)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    if options.ranks:
        with tempfile.TemporaryDirectory() as name:
            return kill_ranks(Path(name), options.minutes, rng)
    disturber = Disturber(rng)
    num_runs = num_different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, LONG)
        words = ["--config", str(config), "--run-dir", str(folder / "undisturbed"), "--workers", "2", "-q"]
        assert PartrainProcess(words, folder).wait(1000).exit_code == 0
        expected = outcome(folder / "undisturbed")
        deadline = time.monotonic() + 60 * options.minutes
        while time.monotonic() < deadline:
            run = run_disturbed(folder, config, disturber, rng)
            num_runs += 1
            num_different += outcome(run) != expected
            print(f"{num_runs} runs, {disturber.done.total()} faults, {num_different} runs differ", flush=True)
    for fault, number in disturber.done.most_common():
        print(f"{number:6} {fault}")
    print(f"{disturber.done.total()} faults in {num_runs} runs; {num_different} runs with differing bits")
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
