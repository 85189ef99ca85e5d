"""Kill ranks of elastic jobs at random moments: `python tests/soak.py --ranks`."""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import shutil
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
# The same number of steps, but of batches of five blocks: the parameters have owners.
OWNED: dict[str, Any] = {"data.train_examples": 500, "training.batch_size": 50, "training.block": 12}
MOST_RANKS = 4
# Kill points, by where they are.
POINTS = {
    "a save": (
        "coordinator: before a save",
        "coordinator: before a file is replaced",
        "coordinator: after a file was replaced",
        "coordinator: between a save and the deletion of older ones",
    ),
    "an evaluation": ("coordinator: before an evaluation", "coordinator: after an evaluation"),
}
HANG_SECONDS = 120.0
# How long mpiexec, and the processes that clean up after a killed rank, may live on.
END_SECONDS = 20.0
RECOVERY = re.compile(r"died.*; \d ranks? go(?:es)? on.*, after (\d+\.\d+) s$", re.MULTILINE)


class RankKiller:
    """Runs elastic jobs and kills ranks of them, never all.

    Parameters
    ----------
    folder : where the jobs run.
    rng : decides which ranks die, and when.

    Attributes
    ----------
    done : how many jobs were run, and how many ranks killed, by kind.
    recovery_seconds : how long each recovery took.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self._jobs: list[tuple[Path, dict[str, Any]]] = []
        for name, changes in (("factors", SHORT), ("owners", SHORT | OWNED)):
            place = folder / name
            place.mkdir()
            config = write_config(place, changes)
            words = ["--config", str(config), "--run-dir", "undisturbed", "--workers", "1", "-q"]
            result = PartrainProcess(words, place).wait(1000)
            assert result.exit_code == 0, result.stderr
            self._jobs.append((config, outcome(place / "undisturbed")))
        self.done: Counter[str] = Counter()
        self.recovery_seconds: list[float] = []

    @property
    def num_killed(self) -> int:
        """The number of ranks that were killed."""
        return sum(number for name, number in self.done.items() if name.startswith("killed"))

    def described(self) -> str:
        """Return what was done, and how long recoveries took."""
        times = self.recovery_seconds or [math.nan]
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.done.items()))
        return (
            f"{self.num_killed} ranks killed ({kinds}); recovery: median {statistics.median(times):.2f} s, longest "
            f"{max(times):.2f} s, of {len(self.recovery_seconds)}"
        )

    def run_job(self) -> None:
        """Run one job to its end; exit the program with what is wrong, if anything is."""
        self.done["jobs"] += 1
        config, expected = self._rng.choice(self._jobs)
        run, token = (self._folder / f"{name}-{self.done['jobs']}" for name in ("run", "token"))
        num_ranks = self._rng.randint(2, MOST_RANKS)
        num_spares = self._rng.choice((0, self._rng.randint(0, num_ranks - 1)))
        words = ["--config", str(config), "--run-dir", str(run), "--engine", "mpi", "--elastic"]
        words += ["--spares", str(num_spares)] if num_spares else []
        words += ["--workers", str(self._rng.randint(0, 1))]
        place = self._rng.choice(("", "a save", "an evaluation"))
        with isolated_jobs() as environment:
            if place:
                token.touch()
                point = f"{self._rng.choice(POINTS[place])}|{self._rng.randint(1, 12)}|{token}"
                environment["PARTRAIN_KILL_AT"] = point
            process = PartrainProcess(words, self._folder, environment, wrapper=mpiexec(num_ranks, "--with-ft", "ulfm"))
            try:
                mapped = self._kill_some(process, run, num_ranks - 1 - token.exists(), num_ranks - num_spares)
                result = process.wait(HANG_SECONDS)
                self._require_nothing_left(process, mapped)
            finally:
                process.kill()
        if place:
            self.done[f"killed in {place}"] += not token.exists()
        if (result.exit_code, result.stdout) != (0, f"{run}\n") or "Traceback" in result.stderr:
            raise SystemExit(f"exit code {result.exit_code}, said:\n{result.stderr}")
        if outcome(run) != expected:
            raise SystemExit(f"{run} has other bits, said:\n{result.stderr}")
        self.recovery_seconds += [float(seconds) for seconds in RECOVERY.findall(result.stderr)]
        shutil.rmtree(run)

    def _kill_some(self, process: PartrainProcess, run: Path, num_deaths: int, num_working: int) -> set[Path]:
        """Kill ranks from when the run exists, which is when MPI has started; return the job's segments."""
        while not run.exists() and process.popen.poll() is None:
            time.sleep(0.01)
        mapped = mapped_by(entry.pid for entry in process.processes())
        while num_deaths > 0 and process.popen.poll() is None:
            time.sleep(self._rng.expovariate(1.5))
            ranks = ranks_of(process)
            at_once = 2 if num_deaths > 1 and self._rng.random() < 0.3 else 1
            dying = self._rng.sample(ranks, min(at_once, len(ranks)))
            for entry in dying:
                with contextlib.suppress(ProcessLookupError):  # it has completed the run
                    os.kill(entry.pid, signal.SIGKILL)
                    is_spare = ranks.index(entry) >= num_working
                    self.done[f"killed as {'rank 0' if entry == ranks[0] else 'spare' if is_spare else 'rank'}"] += 1
            self.done["two at once"] += len(dying) == 2
            num_deaths -= len(dying)
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
        print(killer.described(), file=sys.stderr, flush=True)
    print(f"{killer.described()}; no differing bit, no hang, nothing left over")
    return 0
