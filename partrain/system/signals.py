"""Handles SIGINT, SIGTERM and SIGHUP, with MPI also SIGUSR1: training finishes its step, saves, and ends.

Outside of training there is nothing to save: the first signal ends the command with an exception, so that all clean-up
code runs. A second signal ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# SIGUSR1 is the signal that mpiexec forwards to the ranks without killing them shortly afterwards.
SIGNALS_OF_RANKS = (*SIGNALS, signal.SIGUSR1)


class Interrupted(BaseException):
    """A signal asked the command to end. As with KeyboardInterrupt, `except Exception` does not catch it."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(f"{signal.Signals(number).name}{saved and '; '}{saved}")
        self.exit_code = 128 + number


class Interruption:
    """Handles signals within `watching()`.

    Parameters
    ----------
    signals : the signals to handle.
    second_exits : whether a second signal ends the process at once. If not, because partrain is part of a larger
        program, a second signal has no effect.

    Attributes
    ----------
    received : the number of the first signal, or None.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS, *, second_exits: bool = True) -> None:
        self.received: int | None = None
        self._signals, self._second_exits = signals, second_exits
        self._deferred = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals, and restore the previous handlers at the end.

        An ignored signal stays ignored, as `nohup` requires. Outside of the main thread this does nothing, because
        Python runs signal handlers only in the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in self._signals}
        hook_before = sys.unraisablehook
        # Python swallows an exception that is raised within a finaliser. `check` raises it again.
        sys.unraisablehook = lambda raised: None if isinstance(raised.exc_value, Interrupted) else hook_before(raised)
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._handle)
        try:
            yield
        finally:
            sys.unraisablehook = hook_before
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only record the first signal, in `received`; the caller checks it where it can stop."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self.received is not None:
            raise Interrupted(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if self._second_exits:
                os._exit(128 + number)
            return
        self.received = number
        if not self._deferred:
            raise Interrupted(number)
