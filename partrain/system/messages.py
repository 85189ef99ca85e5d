"""What the program says to the person at the terminal, and keeps in the run's log.

Messages and progress go to stderr; stdout is for data. On a terminal progress is one moving line; elsewhere it
is a plain line every few seconds.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

# No process but this one writes progress: tqdm's own lock would be a semaphore in shared memory, which has a name for
# a moment, and would stay if the process were killed then.
tqdm.set_lock(threading.RLock())

# Between two plain lines of progress, and between two updates of the moving line.
PLAIN_SECONDS = 5.0
MOVING_SECONDS = 0.1


class Messages:
    """Says things on stderr and to the log.

    Parameters
    ----------
    quiet : say only warnings and errors.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._who = ""
        self._log: Callable[[str], None] | None = None
        self._before_log: list[str] = []
        self._bright = sys.stderr.isatty() and not os.environ.get("NO_COLOR")

    def speak_as(self, who: str, *, only_warnings: bool) -> None:
        """Name the speaker in warnings and errors, where several processes speak; and say nothing else, if so asked."""
        self._who = f"{who}: "
        self._quiet = self._quiet or only_warnings

    def attach_log(self, log: Callable[[str], None]) -> None:
        """Have everything said from now on, and what was said before, written by `log` too."""
        self._log = log
        for text in self._before_log:
            log(text)
        self._before_log.clear()

    def detach_log(self) -> None:
        """Say the rest on stderr alone."""
        self._log = None

    def say(self, text: str) -> None:
        """Say what is going on."""
        self.note(text)
        if not self._quiet:
            _print(text)

    def warn(self, text: str) -> None:
        """Say what the person should not miss, even if `quiet`."""
        text = self._who + text
        self.note(f"warning: {text}")
        _print(f"\033[1;33mwarning: {text}\033[0m" if self._bright else f"warning: {text}")

    def error(self, text: str) -> None:
        """Say why the program ends."""
        text = self._who + text
        self.note(f"error: {text}")
        _print(f"\033[1;31merror: {text}\033[0m" if self._bright else f"error: {text}")

    def note(self, text: str) -> None:
        """Write to the log alone."""
        if self._log is None:
            self._before_log.append(text)
        else:
            self._log(text)

    def progress(self, *, first_step: int, last_step: int, num_epochs: int) -> Progress:
        """Return the progress of a training from `first_step` (done already) to `last_step`."""
        if self._quiet:
            return Progress(first_step, last_step, num_epochs)
        if sys.stderr.isatty():
            return _MovingProgress(first_step, last_step, num_epochs)
        return _PlainProgress(first_step, last_step, num_epochs, self.say)


def _print(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone; the training goes on, and the log has it
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


class Progress:
    """Shows nothing; the base of the two kinds that do."""

    seconds = float("inf")

    def __init__(self, first_step: int, last_step: int, num_epochs: int) -> None:
        self.first_step, self.last_step, self.num_epochs = first_step, last_step, num_epochs
        self._shown_at, self._examples_since = time.monotonic(), 0

    def step(self, step: int, epoch: int, loss: float, num_examples: int) -> None:
        """Tell that `step` is done, of `epoch` counted from 1, with `num_examples`; shown once in a while."""
        now = time.monotonic()
        self._examples_since += num_examples
        if now >= self._shown_at + self.seconds or step == self.last_step:
            self.show(step, epoch, loss, self._examples_since / max(now - self._shown_at, 1e-9))
            self._shown_at, self._examples_since = now, 0

    def show(self, step: int, epoch: int, loss: float, examples_per_s: float) -> None:
        """Show it now."""

    def close(self) -> None:
        """Show no more."""


class _PlainProgress(Progress):
    seconds = PLAIN_SECONDS

    def __init__(self, first_step: int, last_step: int, num_epochs: int, say: Callable[[str], None]) -> None:
        super().__init__(first_step, last_step, num_epochs)
        self._say = say
        self._started = time.monotonic()

    def show(self, step: int, epoch: int, loss: float, examples_per_s: float) -> None:
        elapsed = time.monotonic() - self._started
        left = elapsed / max(1, step - self.first_step) * (self.last_step - step)
        self._say(
            f"epoch {epoch}/{self.num_epochs}  step {step}/{self.last_step}  loss {loss:.4f}  "
            f"{examples_per_s:,.0f} examples/s  {tqdm.format_interval(left)} left"
        )


class _MovingProgress(Progress):
    seconds = MOVING_SECONDS

    def __init__(self, first_step: int, last_step: int, num_epochs: int) -> None:
        super().__init__(first_step, last_step, num_epochs)
        has_size = os.get_terminal_size(sys.stderr.fileno()).columns > 0
        self._bar: tqdm[Any] = tqdm(
            total=last_step,
            initial=first_step,
            file=sys.stderr,
            # A terminal that does not know its size says 0 columns, and tqdm would show nothing.
            ncols=None if has_size else 80,
            nrows=None if has_size else 24,
            dynamic_ncols=has_size,
            mininterval=0,
            bar_format="{desc} {percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt} [{remaining} left{postfix}]",
        )

    def show(self, step: int, epoch: int, loss: float, examples_per_s: float) -> None:
        self._bar.set_description_str(f"epoch {epoch}/{self.num_epochs}", refresh=False)
        self._bar.set_postfix_str(f"loss {loss:.4f}, {examples_per_s:,.0f} examples/s", refresh=False)
        with contextlib.suppress(OSError):
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._bar.close()
