"""Threads of this process that compute together, and sleep in between."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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


class PieceThreads:
    """Calls a function for each of some pieces, in this thread and in others that sleep between the runs.

    Parameters
    ----------
    number : the number of threads, with this one.

    Attributes
    ----------
    number : the argument.

    Side effects
    ------------
    The first `run` starts the threads; `close` ends them.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._run: _Run | None = None
        self._team = ThreadTeam(number)

    def run(self, pieces: Sequence[Any], call: Callable[[Any], object]) -> None:
        """Call `call(piece)` once for each piece, in any order; return when all calls have. Raise what one raises."""
        if self.number == 1:
            for piece in pieces:
                call(piece)
            return
        self._run = _Run(call, len(pieces))
        for piece in pieces:
            self._run.waiting.put(piece)
        self._team.work(self._participate)

    def close(self) -> None:
        """End the threads."""
        self._team.close()

    def _participate(self, number: int) -> int:
        run = self._run  # a thread that wakes late may find the next one
        assert run is not None
        while True:
            try:
                piece = run.waiting.get_nowait()
            except queue.Empty:
                break
            try:
                run.call(piece)
            except BaseException as error:  # of any kind: the first thread waits for each piece
                run.outcomes.put(error)
            else:
                run.outcomes.put(None)
        for _ in range(run.num_pieces) if number == 0 else ():
            if (outcome := run.outcomes.get()) is not None:
                raise outcome
        return 0


@dataclass(frozen=True)
class _Run:
    """One run, as its threads share it.

    Attributes
    ----------
    call, num_pieces : the function, and the number of pieces.
    waiting : the pieces that no thread has begun.
    outcomes : for each finished piece None, or the error.
    """

    call: Callable[[Any], object]
    num_pieces: int
    waiting: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    outcomes: queue.SimpleQueue[BaseException | None] = field(default_factory=queue.SimpleQueue)


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
