"""Shows how far a sweep is: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from partrain.analysis.sweep_results import TrialResult, value_text
from partrain.store.sweep_directory import SweepRecord
from partrain.system.messages import PLAIN_SECONDS, Messages
from partrain.system.work_progress import load_tqdm, progress_bar

# The interval between looks at the files of the trainings.
LOOK_SECONDS = 1.0


class SweepProgress:
    """Displays how many trials are done and running, the best so far, and the time left.

    Parameters
    ----------
    record : the sweep.
    messages : prints messages.
    """

    def __init__(self, record: SweepRecord, messages: Messages) -> None:
        self._record, self._messages = record, messages
        self._began = self._said_at = time.monotonic()
        self._began_with: float | None = None
        self._bar = None
        if messages.has_bars:
            load_tqdm().monitor_interval = (
                0  # a process that is forked while a thread holds a lock waits for it forever
            )
            bar = "{desc} {percentage:3.0f}%|{bar}|{postfix}"
            self._bar = progress_bar(total=record.num_trials, mininterval=0, leave=False, bar_format=bar)

    def show(self, results: Sequence[TrialResult], num_running: int) -> None:
        """Display the state of the trials."""
        done = sum(result.progress for result in results)
        if self._began_with is None:
            self._began_with = done
        if self._bar is not None:
            self._bar.set_description_str(_counts(self._record, results, num_running), refresh=False)
            self._bar.set_postfix_str(", ".join(self._more(results, done)), refresh=False)
            with contextlib.suppress(OSError):
                self._bar.n = min(done, self._record.num_trials)
                self._bar.refresh()
        elif time.monotonic() >= self._said_at + PLAIN_SECONDS:
            self.say(results, num_running)

    def say(self, results: Sequence[TrialResult], num_running: int | None, prefix: str = "") -> None:
        """Print a line with the state of the trials; without the number of running ones if it is None."""
        self._said_at = time.monotonic()
        done = sum(result.progress for result in results)
        parts = [_counts(self._record, results, num_running), *self._more(results, done)]
        self._messages.say(prefix + ", ".join(parts))

    def _more(self, results: Sequence[TrialResult], done: float) -> list[str]:
        best = best_trial(self._record, results)
        parts = []
        if best is not None and best.value is not None:
            parts.append(f"best {value_text(self._record, best.value)} ({best.trial.run})")
        gained, left = done - (self._began_with or 0.0), self._record.num_trials - done
        if gained > 0 and left > 0:
            seconds = (time.monotonic() - self._began) / gained * left
            parts.append(f"{load_tqdm().format_interval(seconds)} left")
        return parts

    def close(self) -> None:
        """Stop displaying."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()


def best_trial(record: SweepRecord, results: Sequence[TrialResult]) -> TrialResult | None:
    """Return the best of the completed trials; None without any."""
    completed = [result for result in results if result.status == "completed" and result.value is not None]
    sign = 1 if record.wants_highest else -1
    return max(completed, key=lambda result: sign * (result.value or 0.0), default=None)


def _counts(record: SweepRecord, results: Sequence[TrialResult], num_running: int | None) -> str:
    num_done = sum(result.status == "completed" for result in results)
    num_pruned = sum(result.status == "pruned" for result in results)
    pruned = f", {num_pruned} pruned" if num_pruned else ""
    running = "" if num_running is None else f", {num_running} running"
    return f"{num_done} of {record.num_trials} done{pruned}{running}"
