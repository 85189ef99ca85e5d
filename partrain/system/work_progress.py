"""Shows how much of some work is done: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

# Time between two lines of progress.
PROGRESS_SECONDS = 5.0


class WorkProgress:
    """Displays progress until the end of its `with` block; then the bar disappears.

    Parameters
    ----------
    action : what is being done, e.g. "decoding".
    unit : what is counted, in the plural.
    total : how many there are.
    say : called with a line every few seconds if there is no bar.
    has_bar : whether to draw a bar on stderr.
    """

    def __init__(self, action: str, unit: str, total: int, say: Callable[[str], None], *, has_bar: bool) -> None:
        self._text, self._unit, self._total, self._say = action, unit, total, say
        self._num_done, self._said_at = 0, time.monotonic()
        self._bar: tqdm[Any] = tqdm(
            total=total, desc=action, unit=f" {unit}", leave=False, file=sys.stderr, disable=not has_bar
        )

    def show(self, num_done: int) -> None:
        """Display that `num_done` are done."""
        self._bar.update(num_done - self._num_done)
        self._num_done = num_done
        if self._bar.disable and num_done < self._total and time.monotonic() > self._said_at + PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            self._say(f"{self._text}: {num_done:,} of {self._total:,} {self._unit}")

    def step(self) -> None:
        """Display that one more is done."""
        self.show(self._num_done + 1)

    def __enter__(self) -> WorkProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
