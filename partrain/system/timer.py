"""Measures the time of each activity of the program, with the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of each activity. The time of nested activities counts for the innermost one.

    Attributes
    ----------
    seconds : by activity, up to the last switch.
    """

    def __init__(self, activity: str, *others: str) -> None:
        self.seconds = dict.fromkeys((activity, *others), 0.0)
        self._activity = activity
        self._since = time.monotonic()

    def switch(self, activity: str) -> str:
        """Count the time from now on for `activity`; return the previous activity."""
        now = time.monotonic()
        self.seconds[self._activity] += now - self._since
        before, self._activity, self._since = self._activity, activity, now
        return before

    @contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        """Count the time of the `with` block for `activity`."""
        before = self.switch(activity)
        try:
            yield
        finally:
            self.switch(before)

    def read(self) -> dict[str, float]:
        """Return the seconds of each activity until now."""
        self.switch(self._activity)
        return dict(self.seconds)
