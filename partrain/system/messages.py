"""Messages and progress on stderr and in the run's log; stdout is for data.

Messages quote names from configurations, runs and files, so characters that control a terminal are replaced in all of
them. On a terminal and in a notebook, progress is a bar that is updated in place. Otherwise it is a plain line every
few seconds.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from partrain.system.standard_streams import is_notebook, is_terminal
from partrain.system.terminal_text import loss_text, printable_lines
from partrain.system.work_progress import load_tqdm, progress_bar

# The interval between plain lines of progress, and between updates of the bar.
PLAIN_SECONDS = 5.0
BAR_SECONDS = 0.1


class Messages:
    """Prints messages on stderr and writes them to the run's log.

    Parameters
    ----------
    quiet : print only warnings and errors.

    Attributes
    ----------
    begins_again : whether the program repeats its beginning, after a failure that it survives. As long as this is true,
        messages other than errors go to the log only.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.begins_again = False
        self._quiet = self._asked_quiet = quiet
        self._prefix = ""
        self._log: Callable[[str], None] | None = None
        self._before_log: list[str] = []
        self._has_colours = is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")

    def set_rank(self, name: str, *, only_warnings: bool) -> None:
        """Begin warnings and errors with the name of this rank; with `only_warnings`, print nothing else."""
        self._prefix = f"{name}: "
        self._quiet = self._asked_quiet or only_warnings

    def attach_log(self, log: Callable[[str], None]) -> None:
        """Write all messages to `log` as well, including those so far."""
        self._log = log
        for text in self._before_log:
            log(text)
        self._before_log.clear()

    def detach_log(self) -> None:
        """Stop writing messages to the log."""
        self._log = None

    def say(self, text: str) -> None:
        """Print an informative message, unless `quiet`, and log it."""
        text = printable_lines(text)
        self.note(text)
        if not self._quiet and not self.begins_again:
            _print(text)

    def warn(self, text: str) -> None:
        """Print and log a warning."""
        text = self._prefix + printable_lines(text)
        self.note(f"warning: {text}")
        if not self.begins_again:
            _print(f"\033[1;33mwarning: {text}\033[0m" if self._has_colours else f"warning: {text}")

    def error(self, text: str) -> None:
        """Print and log the reason for which the program ends."""
        text = self._prefix + printable_lines(text)
        self.note(f"error: {text}")
        _print(f"\033[1;31merror: {text}\033[0m" if self._has_colours else f"error: {text}")

    def note(self, text: str) -> None:
        """Write to the log only."""
        text = printable_lines(text)
        if self._log is None:
            self._before_log.append(text)
        else:
            self._log(text)

    @property
    def has_bars(self) -> bool:
        """Whether progress is shown as bars: on a terminal and in a notebook, unless `quiet`."""
        return not self._quiet and (is_terminal(sys.stderr) or is_notebook(sys.stderr))

    def progress(
        self, *, first_step: int, last_step: int, num_epochs: int, training_seconds: Callable[[], float] | None = None
    ) -> Progress:
        """Return the progress display of a training run from `first_step` (already done) to `last_step`.

        Parameters
        ----------
        training_seconds : returns the seconds of training so far, without evaluations and saves; the training rate
            uses them. None: all time counts.
        """
        display = Progress if self._quiet else _BarProgress if self.has_bars else _PlainProgress
        return display(first_step, last_step, num_epochs, training_seconds or (lambda: time.monotonic()), self.say)


def _print(text: str) -> None:
    if sys.stderr is None or sys.stderr.closed:
        return  # a program without a terminal, such as a daemon, may have closed it
    with contextlib.suppress(OSError):  # the terminal has closed; training continues, and the log has the message
        load_tqdm().write(text, file=sys.stderr)
        sys.stderr.flush()


class Progress:
    """Displays nothing; the base class of the two kinds of progress display.

    Parameters
    ----------
    first_step, last_step, num_epochs, training_seconds : as for `Messages.progress`.
    say : prints a line.
    """

    seconds = float("inf")

    def __init__(
        self,
        first_step: int,
        last_step: int,
        num_epochs: int,
        training_seconds: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.first_step, self.last_step, self.num_epochs = first_step, last_step, num_epochs
        self._training_seconds, self._say = training_seconds, say
        self._started = self._shown_at = time.monotonic()
        # The number of examples and the seconds of training, at the start and when the progress was last displayed.
        self._num_examples = self._num_shown = 0
        self._trained_from = self._trained_shown = training_seconds()
        self._state = self._shown = (first_step, 0, float("nan"))

    def step(self, step: int, epoch: int, loss: float, num_examples: int) -> None:
        """Record that `step` of `epoch` (counted from 1) is done, with `num_examples`; display it if it is time."""
        # Private training can draw an empty batch, which has no loss.
        self._state = (step, epoch, loss if num_examples else self._state[2])
        self._num_examples += num_examples
        now = time.monotonic()
        if now >= self._shown_at + self.seconds:
            trained = self._training_seconds()
            rate = (self._num_examples - self._num_shown) / max(trained - self._trained_shown, 1e-9)
            self._shown_at, self._num_shown, self._trained_shown = now, self._num_examples, trained
            self._show(rate)

    def close(self, *, is_complete: bool = False) -> None:
        """Display the last step, with the rate of all steps, and stop displaying.

        Parameters
        ----------
        is_complete : whether the training is complete, even if it did not make all steps.
        """
        step = self._state[0]
        if step > self.first_step:
            has_ended_early = is_complete and step < self.last_step
            if has_ended_early:
                self.last_step = step
            if self._shown != self._state or has_ended_early:
                self._show(self._num_examples / max(self._training_seconds() - self._trained_from, 1e-9))

    def _show(self, examples_per_s: float) -> None:
        step, epoch, loss = self._shown = self._state
        seconds_per_step = (time.monotonic() - self._started) / max(1, step - self.first_step)
        left = load_tqdm().format_interval(seconds_per_step * (self.last_step - step))
        rate = f"{examples_per_s:,.0f} examples/s"
        self.show(step, f"epoch {epoch}/{self.num_epochs}", f"loss {loss_text(loss)}", rate, left)

    def show(self, step: int, epoch: str, loss: str, rate: str, left: str) -> None:
        """Display the state of the training now."""


class _PlainProgress(Progress):
    seconds = PLAIN_SECONDS

    def show(self, step: int, epoch: str, loss: str, rate: str, left: str) -> None:
        self._say(f"{epoch}  step {step}/{self.last_step}  {loss}  {rate}  {left} left")


class _BarProgress(Progress):
    seconds = BAR_SECONDS

    def __init__(self, first_step: int, last_step: int, *others: Any) -> None:
        super().__init__(first_step, last_step, *others)
        self._bar = progress_bar(
            total=last_step,
            initial=first_step,
            mininterval=0,
            bar_format="{desc} {percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}",
        )

    def show(self, step: int, epoch: str, loss: str, rate: str, left: str) -> None:
        if self._bar.total != self.last_step:
            self._bar.reset(total=self.last_step)  # a notebook's bar does not look at `total` again
        self._bar.set_description_str(epoch, refresh=False)
        # tqdm puts a comma before it. Its own time left would forget all but the last steps.
        self._bar.set_postfix_str(f"{left} left, {loss}, {rate}", refresh=False)
        with contextlib.suppress(OSError):
            self._bar.n = step
            self._bar.refresh()

    def close(self, *, is_complete: bool = False) -> None:
        super().close(is_complete=is_complete)
        with contextlib.suppress(OSError):
            self._bar.close()
