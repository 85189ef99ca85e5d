"""Handles SIGINT, SIGTERM and SIGHUP, with MPI also SIGUSR1: training finishes its step, saves, and ends.

Outside of training there is nothing to save: the first signal ends the command with an exception, so that all clean-up
code runs.

Further signals have no effect once the first one has, because they are not another request: when a terminal closes, the
kernel and the shell each send SIGHUP, and a session manager adds SIGTERM. The exception is a second Ctrl-C, which ends
the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# SIGUSR1 is the signal that mpiexec forwards to the ranks without killing them shortly afterwards.
SIGNALS_OF_RANKS = (*SIGNALS, signal.SIGUSR1)

# A second SIGINT within this time belongs to the same key press: a terminal and a launcher may each send one.
SAME_REQUEST_SECONDS = 1.0


class Interrupted(BaseException):
    """A signal asked the command to end. As with KeyboardInterrupt, `except Exception` does not catch it."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(f"{signal.Signals(number).name}{saved and '; '}{saved}")
        self.number, self.exit_code = number, 128 + number


class Interruption:
    """Handles signals within `watching()`.

    Parameters
    ----------
    signals : the signals to handle.
    second_exits : whether a second SIGINT, at least SAME_REQUEST_SECONDS after the first, ends the process at once. If
        not, because partrain is part of a larger program, it has no effect either.

    Attributes
    ----------
    received : the number of the first signal, or None.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS, *, second_exits: bool = True) -> None:
        self.received: int | None = None
        self._signals, self._second_exits = signals, second_exits
        self._deferred = False
        self._has_raised = False
        self._interrupted_at: float | None = None

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
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at is None:
                self._interrupted_at = now
            elif self._second_exits and now - self._interrupted_at >= SAME_REQUEST_SECONDS:
                os._exit(128 + number)
        if self.received is None:
            self.received = number
            if not self._deferred:
                self._has_raised = True
                raise Interrupted(number)
        # The first exception was swallowed, as by C code that called back.
        elif self._has_raised and not self._deferred and interruption_behind(sys.exc_info()[1]) is None:
            raise Interrupted(self.received)


def interruption_behind(error: BaseException | None) -> Interrupted | None:
    """Return the Interrupted that `error` is, or that led to it; None if there was none.

    Other code may turn an exception into its own: before Python 3.12, one in `__set_name__`, as in an import, becomes a
    RuntimeError.
    """
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def handle_signals_again() -> None:
    """Install the handlers of this process again, because a library has replaced them: Open MPI 5 takes SIGHUP."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS_OF_RANKS:
            if callable(handler := signal.getsignal(number)):
                signal.signal(number, handler)


def exit_at_signals() -> None:
    """Let signals end this process at once, with exit code 128 + number; for its imports.

    An exception would not do: imported code may catch it, or turn it into an error of its own.
    """
    _handle_with(lambda number, frame: os._exit(128 + number))


def ignore_signals() -> None:
    """Let signals have no effect on this process; for its end, when its exit code is known."""
    _handle_with(signal.SIG_IGN)


def _handle_with(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in SIGNALS_OF_RANKS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
