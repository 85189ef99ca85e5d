"""Where the time goes: every moment belongs to one activity. Monotonic; the clock on the wall decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of each activity; of nested activities the inner one gets the time.

    Attributes
    ----------
    seconds : by activity, up to its last change.
    """

    def __init__(self, activity: str, *others: str) -> None:
        self.seconds = dict.fromkeys((activity, *others), 0.0)
        self._activity = activity
        self._since = time.monotonic()

    def switch(self, activity: str) -> str:
        """Give the time from now on to `activity`; return the activity that had it."""
        now = time.monotonic()
        self.seconds[self._activity] += now - self._since
        before, self._activity, self._since = self._activity, activity, now
        return before

    @contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        """Give the time within to `activity`."""
        before = self.switch(activity)
        try:
            yield
        finally:
            self.switch(before)

    def read(self) -> dict[str, float]:
        """Return the seconds of each activity up to now."""
        self.switch(self._activity)
        return dict(self.seconds)
