"""SIGINT, SIGTERM and SIGHUP (with MPI SIGUSR1 too): asked to stop, the training finishes its step and saves.

Outside of a training there is nothing to save: there the first signal ends the command, as an exception that
passes through every clean-up. A second signal ends the process at once.
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
# What mpiexec passes on to the ranks without killing them half a second later.
SIGNALS_OF_RANKS = (*SIGNALS, signal.SIGUSR1)


class Interrupted(BaseException):
    """A signal asked the command to end. Like KeyboardInterrupt, no `except Exception` catches it."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(f"{signal.Signals(number).name}{saved and '; '}{saved}")
        self.exit_code = 128 + number


class Interruption:
    """Watches for the signals, within `watching()`.

    Parameters
    ----------
    signals : which ones.
    second_exits : a second signal ends the process at once; else, where the program around goes on, it changes
        nothing: the first one is being followed.

    Attributes
    ----------
    received : the first signal's number, or None.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS, *, second_exits: bool = True) -> None:
        self.received: int | None = None
        self._signals, self._second_exits = signals, second_exits
        self._deferred = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals, and put back at the end what handled them before.

        An ignored signal stays ignored, as `nohup` wants it. Outside of the main thread nothing is handled:
        Python gives signals to no other.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in self._signals}
        hook_before = sys.unraisablehook
        # Raised within a finaliser, the exception ends there; `check` raises it again.
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
        """Only take note of a first signal, in `received`; the caller looks at it where it can stop."""
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
