"""Threads of this process that compute together, and sleep in between."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from partrain.system.process_limits import reporting_process_limit


class ThreadTeam:
    """This thread, and others that sleep between their calls.

    Parameters
    ----------
    size : the number of threads, with this one.

    Side effects
    ------------
    The first `work` starts the threads; `close` ends them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._sleepers: list[_Sleeper] = []

    def work(self, call: Callable[[int], int]) -> int:
        """Let the others call `call(number)`, with 1 to `size` - 1; return the result of `call(0)` in this thread.

        Parameters
        ----------
        call : the same each time. Called with 0 it returns when the work of all is done.
        """
        while len(self._sleepers) < self._size - 1:
            self._sleepers.append(_Sleeper(call, len(self._sleepers) + 1))
        for sleeper in self._sleepers:
            sleeper.wake()
        return call(0)

    def close(self) -> None:
        """End the threads."""
        while self._sleepers:
            self._sleepers.pop().close()


class _Sleeper:
    """A thread that calls `call(number)` each time it is woken."""

    def __init__(self, call: Callable[[int], object], number: int) -> None:
        self._call, self._number = call, number
        self._closing = False
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self._thread = threading.Thread(target=self._run, name=f"partrain update {number}", daemon=True)
        # Signals are for the main thread: if another thread received one, the main thread's wait would not end.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with reporting_process_limit():
                self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def wake(self) -> None:
        """Let the thread call once; if it has not begun the call of an earlier wake, that call counts for both."""
        if self._asleep.locked():
            self._asleep.release()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self.wake()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._asleep.acquire()
            if self._closing:
                return
            self._call(self._number)
