"""A run that is followed while it trains, by reading its files again and again.

Nothing else is looked at, no process and no lock: the run may train on another machine that shares the directory.
"""

from __future__ import annotations

import os
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.logged_run import finite, is_step, nested, text
from partrain.errors import RunError
from partrain.store.metrics_follower import MetricsFollower
from partrain.store.run_documents import read_document
from partrain.store.run_paths import RunPaths

# A run without news for this time may have been killed; longer if its logged steps are far apart.
QUIET_SECONDS = 60.0
QUIET_INTERVALS = 10

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


class FollowedRun:
    """The state of a run as its files say it; `poll` reads what has changed.

    Parameters
    ----------
    path : the run's directory. It may change if the directory is moved.

    Attributes
    ----------
    record : the content of run.json.
    problem : why something could not be read by the last `poll`; None if everything could be.
    test_accuracy : the accuracy on the test examples; None until the run is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}
        self.problem: str | None = None
        self.test_accuracy: float | None = None
        self._follower = MetricsFollower(RunPaths(path).metrics_path)
        self._clear()
        # The state of the files when they were read, and when it was last seen to be new.
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._noted: dict[Path, tuple[int, ...]] = {}
        self._changed_at: float | None = None

    def _clear(self) -> None:
        self._series: dict[str, tuple[array[float], array[float]]] = {}
        self._epoch: float | None = None
        # Step and time of the logged steps.
        self._times = (array("d"), array("d"))
        self._rate: float | None = None

    @property
    def name(self) -> str:
        """The name of the directory."""
        return os.path.basename(os.path.abspath(self.path))

    @property
    def status(self) -> str:
        """The status in run.json; "waiting" before it exists."""
        return text(self.record.get("status")) or ("broken" if self.problem else "waiting")

    @property
    def has_ended(self) -> bool:
        """Whether the run has said that it ended."""
        return self.status not in ("running", "waiting", "broken")

    @property
    def cause(self) -> str | None:
        """Why the run ended before it was complete; None if it is not recorded."""
        return text(self.record.get("cause")) if self.has_ended else None

    def poll(self) -> None:
        """Read what has changed since the last call; what cannot be read is a `problem`, and the rest stays."""
        self.problem = None
        paths = RunPaths(self.path)
        self._follower.path = paths.metrics_path
        files = (paths.run_json_path, paths.metrics_path, paths.train_log_path, paths.checkpoints_path)
        seen = {file: stamp for file in files if (stamp := _stamp(file)) is not None}
        if seen == self._seen:
            return
        if seen != self._noted:
            self._note_news(seen)
        try:
            if seen.get(paths.run_json_path) != self._seen.get(paths.run_json_path) and paths.run_json_path in seen:
                self.record = read_document(paths.run_json_path)
            if self._follower.was_cut():
                self._clear()
            for row in self._follower.new_rows():
                self._add(row)
            if self.status == "completed":
                self.test_accuracy = finite(nested(read_document(paths.summary_path), "test", "accuracy"))
            self._seen = seen
        except RunError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = f"{error.filename or self.path}: cannot be read: {error.strerror}"

    def _note_news(self, seen: dict[Path, tuple[int, ...]]) -> None:
        now, self._noted = time.monotonic(), seen
        if self._changed_at is None:  # the clocks of two machines may differ
            newest = max((stamp[0] for stamp in seen.values()), default=time.time_ns())
            self._changed_at = now - max(0.0, (time.time_ns() - newest) / 1e9)
        else:
            self._changed_at = now

    def _add(self, row: dict[str, Any]) -> None:
        if not is_step(row.get("step")):
            return
        step = float(row["step"])
        for name in ("train/loss", "validation/loss", "validation/accuracy"):
            if (value := finite(row.get(name))) is not None:
                steps, values = self._series.setdefault(name, (array("d"), array("d")))
                steps.append(step)
                values.append(value)
        epoch, time_s, rate = (finite(row.get(name)) for name in ("epoch", "time_s", "examples_per_s"))
        self._epoch = epoch if epoch is not None else self._epoch
        self._rate = rate if rate is not None else self._rate
        if time_s is not None:
            self._times[0].append(step)
            self._times[1].append(time_s)

    def series(self, name: str) -> Series:
        """Return the steps and the finite values of a metric."""
        steps, values = self._series.get(name, (array("d"), array("d")))
        return np.array(steps), np.array(values)

    def last(self, name: str) -> float | None:
        """Return the last value of a metric."""
        values = self._series.get(name, ((), ()))[1]
        return values[-1] if values else None

    def best(self, name: str, *, highest: bool) -> tuple[int, float] | None:
        """Return the step and the value of the earliest best value of a metric."""
        steps, values = self.series(name)
        if not len(values):
            return None
        index = int(values.argmax() if highest else values.argmin())
        return int(steps[index]), float(values[index])

    @property
    def step(self) -> int | None:
        """The last logged step."""
        return int(self._times[0][-1]) if self._times[0] else None

    @property
    def epoch(self) -> float | None:
        """The epochs made at that step."""
        return self._epoch

    @property
    def num_epochs(self) -> float | None:
        """How many epochs the run is to make."""
        return finite(nested(self.record, "horizon", "epochs"))

    @property
    def rate(self) -> float | None:
        """The examples per second at the last logged step."""
        return self._rate

    @property
    def workers(self) -> str:
        """The processes that compute: "2 workers"."""
        number, ranks = finite(self.record.get("workers")), self.record.get("ranks")
        if number is None:
            return ""
        workers = f"{number:,.0f} worker{'s' * (number != 1)}" if number else "no workers"
        return workers + (f" on {len(ranks)} rank{'s' * (len(ranks) != 1)}" if isinstance(ranks, list) else "")

    @property
    def last_step(self) -> int | None:
        """The last step that the current session plans; None if run.json does not say it."""
        session = self._session
        step = nested(session, "logged", "last_step")
        return step if is_step(step) else None

    @property
    def _session(self) -> dict[str, Any]:
        lineage = self.record.get("lineage")
        return lineage[-1] if isinstance(lineage, list) and lineage and isinstance(lineage[-1], dict) else self.record

    @property
    def seconds(self) -> float | None:
        """The time that the run has taken so far."""
        return self._times[1][-1] if self._times[1] else None

    @property
    def seconds_left(self) -> float | None:
        """How long the steps that are left will take at the pace of this session; None if it is not known."""
        steps, times = np.array(self._times[0]), np.array(self._times[1])
        from_step = finite(self._session.get("from_step")) or 0
        if self.has_ended or self.last_step is None or not len(steps):
            return None
        first = int(np.searchsorted(steps, from_step, side="right"))
        if first < len(steps) - 1 and steps[-1] > steps[first]:
            pace = (times[-1] - times[first]) / (steps[-1] - steps[first])
        elif steps[-1] > 0:
            pace = times[-1] / steps[-1]
        else:
            return None
        return float(max(0.0, pace * (self.last_step - steps[-1])))

    @property
    def seconds_without_news(self) -> float:
        """How long no file of the run has changed."""
        return 0.0 if self._changed_at is None else time.monotonic() - self._changed_at

    @property
    def is_quiet(self) -> bool:
        """Whether a run that has not ended has no news for so long that it may have been killed."""
        times = self._times[1][-QUIET_INTERVALS:]
        interval = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        return not self.has_ended and self.seconds_without_news > max(QUIET_SECONDS, QUIET_INTERVALS * interval)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does; None if it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
