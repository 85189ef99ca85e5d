"""Kill ranks of elastic jobs at random moments: `python tests/soak.py --ranks`."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.mpi_processes import isolated_jobs, mapped_by, mpiexec, ranks_of, segments
from tests.program import PartrainProcess
from tests.whole_runs import outcome, write_config

# A few seconds when nothing disturbs it: 200 steps, with many evaluations and saves.
SHORT: dict[str, Any] = {
    "training.epochs": 20,
    "logging": {"every_steps": 5, "evaluate_every_steps": 14},
    "checkpoints": {"every_steps": 9},
}
MOST_RANKS = 4
HANG_SECONDS = 120.0
# How long mpiexec, and the processes that clean up after a killed rank, may live on.
END_SECONDS = 20.0
RECOVERY = re.compile(r"died; \d ranks? go(?:es)? on.*, after (\d+\.\d+) s$", re.MULTILINE)


class RankKiller:
    """Runs elastic jobs and kills ranks of them, never all.

    Parameters
    ----------
    folder : where the jobs run.
    rng : decides which ranks die, and when.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self._config = write_config(folder, SHORT)
        words = ["--config", str(self._config), "--run-dir", "undisturbed", "--workers", "1", "-q"]
        result = PartrainProcess(words, folder).wait(1000)
        assert result.exit_code == 0, result.stderr
        self._expected = outcome(folder / "undisturbed")
        self.done: Counter[str] = Counter()
        self.recovery_seconds: list[float] = []

    def run_job(self) -> None:
        """Run one job to its end; exit the program with what is wrong, if anything is."""
        self.done["jobs"] += 1
        num_ranks, run = self._rng.randint(2, MOST_RANKS), self._folder / f"run-{self.done['jobs']}"
        with isolated_jobs() as environment:
            process = PartrainProcess(
                [
                    "--config",
                    str(self._config),
                    "--run-dir",
                    str(run),
                    "--engine",
                    "mpi",
                    "--elastic",
                    "--workers",
                    "1",
                ],
                self._folder,
                environment,
                wrapper=mpiexec(num_ranks, "--with-ft", "ulfm"),
            )
            try:
                mapped = self._kill_some(process, run, num_ranks)
                result = process.wait(HANG_SECONDS)
                self._require_nothing_left(process, mapped)
            finally:
                process.kill()
        if (result.exit_code, result.stdout) != (0, f"{run}\n") or "Traceback" in result.stderr:
            raise SystemExit(f"exit code {result.exit_code}, said:\n{result.stderr}")
        if outcome(run) != self._expected:
            raise SystemExit(f"{run} has other bits, said:\n{result.stderr}")
        self.recovery_seconds += [float(seconds) for seconds in RECOVERY.findall(result.stderr)]

    def _kill_some(self, process: PartrainProcess, run: Path, num_ranks: int) -> set[Path]:
        """Kill ranks from when the run exists, which is when MPI has started; return the job's segments."""
        while not run.exists() and process.popen.poll() is None:
            time.sleep(0.01)
        mapped = mapped_by(entry.pid for entry in process.processes())
        num_deaths = self._rng.randint(1, num_ranks - 1)
        while num_deaths and process.popen.poll() is None:
            time.sleep(self._rng.expovariate(1.0))
            ranks = ranks_of(process)
            number = 2 if num_deaths > 1 and self._rng.random() < 0.3 else 1
            for entry in self._rng.sample(ranks, min(number, len(ranks))):
                with contextlib.suppress(ProcessLookupError):  # it has completed the run
                    os.kill(entry.pid, signal.SIGKILL)
                self.done["killed as rank 0" if entry == ranks[0] else "killed as another rank"] += 1
                num_deaths -= 1
        return mapped

    @staticmethod
    def _require_nothing_left(process: PartrainProcess, mapped: set[Path]) -> None:
        deadline = time.monotonic() + END_SECONDS
        while process.processes() or mapped & segments():
            if time.monotonic() > deadline:
                raise SystemExit(f"left over: {process.processes()}, {mapped & segments()}")
            time.sleep(0.1)


def kill_ranks(folder: Path, minutes: float, rng: random.Random) -> int:
    """Run jobs for so long; print what was done, and the median recovery; return 0."""
    killer = RankKiller(folder, rng)
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        killer.run_job()
        print(dict(killer.done), file=sys.stderr, flush=True)
    times = sorted(killer.recovery_seconds)
    print(
        f"{dict(killer.done)}: no differing bit, no hang, nothing left over; recovery: median "
        f"{statistics.median(times):.2f} s, longest {times[-1]:.2f} s, of {len(times)}"
    )
    return 0
