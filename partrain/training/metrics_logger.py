"""Logging: rows of metrics in `metrics.jsonl`, the latest value of each metric, and the training rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from partrain.errors import FailedRun
from partrain.store.metrics_log import MetricsLog
from partrain.system.fault_injection import kill_point
from partrain.system.timer import Stopwatch
from partrain.training.plan import TrainingPlan

Metrics = dict[str, float]

# The digest of the parameters in a row.
DIGEST_METRIC = "parameters_sha256"

# Fields of a row that are not metrics.
_POSITION = ("step", "epoch", "examples", "time_s")


class RowSink(Protocol):
    """Receives rows of metrics; see MetricsLog."""

    def append(self, row: dict[str, Any]) -> None:
        """Append one row."""

    def reopen(self) -> bool:
        """Continue in another file if the open one was removed. Return whether it was."""

    def flush_durably(self) -> None:
        """Make all rows so far survive a crash."""

    def close(self) -> None:
        """Close the file."""


class MetricsLogger:
    """Appends rows of metrics to the run's file.

    If a row cannot be written, the logger warns, training continues, and further lost rows are counted.

    Parameters
    ----------
    path : the file; None: nothing is written, because another rank writes it.
    plan : gives the epoch and the number of examples of a step.
    clock : measures the activities of the run; the training rate uses the time of "train".
    warn : receives warnings.
    open_log : opens the file.

    Attributes
    ----------
    latest : the latest value of each metric.
    """

    def __init__(
        self,
        path: Path | None,
        plan: TrainingPlan,
        clock: Stopwatch,
        warn: Callable[[str], None],
        open_log: Callable[[Path], RowSink] = MetricsLog,
    ) -> None:
        self._path, self._plan, self._clock, self._warn, self._open_log = path, plan, clock, warn, open_log
        self._log: RowSink | None = None
        self._earlier_seconds = 0.0
        self._rated_examples, self._rated_seconds = 0, 0.0
        self._num_lost_rows, self._last_step = 0, 0
        self.latest: Metrics = {}
        self._copy: Callable[[dict[str, Any]], None] | None = None

    def open(self) -> None:
        """Open the file.

        Raises
        ------
        FailedRun
            The file cannot be written.
        """
        if self._path is None:
            return
        try:
            self._log = self._open_log(self._path)
        except OSError as error:
            raise FailedRun(f"{self._path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Report the rows that were lost, and close the file."""
        self._report_lost_rows()
        if self._log is not None:
            self._log.close()
            self._log = None

    def resume(self, step: int, rows: Sequence[dict[str, Any]], earlier_seconds: float) -> None:
        """Continue after `step`.

        Parameters
        ----------
        step : the step of the checkpoint.
        rows : the run's rows up to that step.
        earlier_seconds : the seconds that the run took up to that step.
        """
        self._earlier_seconds = earlier_seconds
        self._rated_examples = self._plan.num_examples_until(step)
        for row in rows:
            self.latest |= {k: v for k, v in row.items() if k not in _POSITION and isinstance(v, int | float)}

    def copy_rows_to(self, receive: Callable[[dict[str, Any]], None] | None) -> None:
        """Call a function with each row from now on, after it was written; None: call none."""
        self._copy = receive

    def flush_durably(self) -> None:
        """Write all rows so far to disk, so that they survive a crash.

        Raises
        ------
        OSError
            An I/O error.
        """
        if self._log is not None:
            self._log.flush_durably()

    def log_step(self, step: int, metrics: Metrics, *, seconds_ago: float) -> dict[str, Any]:
        """Append a row about the batch of `step`, with the training rate since the previous such row; return it.

        Parameters
        ----------
        seconds_ago : how long ago the step was finished.
        """
        num_examples, seconds = self._plan.num_examples_until(step), self._clock.read()["train"] - seconds_ago
        rate = (num_examples - self._rated_examples) / max(seconds - self._rated_seconds, 1e-9)
        self._rated_examples, self._rated_seconds = num_examples, seconds
        return self.log(step, metrics | {"examples_per_s": round(rate, 1)}, seconds_ago=seconds_ago)

    def log(self, step: int, metrics: Metrics, *, seconds_ago: float = 0.0) -> dict[str, Any]:
        """Append a row, and return it; `seconds_ago` as for `log_step`."""
        self.latest |= metrics
        return self._append(step, dict(metrics), seconds_ago)

    def log_digest(self, step: int, parameters_sha256: str) -> None:
        """Append a row with the digest of the parameters."""
        self._append(step, {DIGEST_METRIC: parameters_sha256}, 0.0)

    def _append(self, step: int, values: dict[str, Any], seconds_ago: float) -> dict[str, Any]:
        seconds = sum(self._clock.read().values()) - seconds_ago
        row: dict[str, Any] = {
            "step": step,
            "epoch": round(step / self._plan.steps_per_epoch, 6),
            "examples": self._plan.num_examples_until(step),
            "time_s": round(self._earlier_seconds + seconds, 3),
            **values,
        }
        self._last_step = step
        if self._log is not None:
            self._write(self._log, row)
        if self._copy is not None:
            self._copy(row)
        return row

    def _write(self, log: RowSink, row: dict[str, Any]) -> None:
        step = row["step"]
        kill_point("coordinator: before a line of metrics")
        if log.reopen():
            self._warn(f"{self._path}: was removed or replaced; from step {step} on, metrics are added to the new file")
        try:
            log.append(row)
        except OSError as error:
            if not self._num_lost_rows:
                self._warn(
                    f"the metrics of step {step} are lost: {error.strerror}; training continues, and further lost "
                    "lines are counted"
                )
            self._num_lost_rows += 1
        else:
            self._report_lost_rows()
        kill_point("coordinator: after a line of metrics")

    def _report_lost_rows(self) -> None:
        if self._num_lost_rows > 1:
            self._warn(f"{self._num_lost_rows} lines of metrics were lost up to step {self._last_step}")
        self._num_lost_rows = 0
