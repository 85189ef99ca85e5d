"""A training in a forked process: it shares the loaded kernels and the data set with the sweep, and ends with it."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

from partrain.errors import PartrainError
from partrain.store.sweep_directory import Trial
from partrain.system.messages import Messages
from partrain.system.parent_death import end_with_parent
from partrain.system.process_directory import remove_process_directory
from partrain.system.process_limits import reporting_process_limit
from partrain.system.signals import SIGNALS, Interruption, ignore_signals, interruption_behind

_READ_BYTES = 2**16


class TrainingProcess:
    """A training that runs in a process of its own.

    The process is a fork of this one, so nothing is loaded again, and the data set in shared memory is there once. It
    has a process group of its own: Ctrl-C on the terminal reaches only this process, which passes it on.

    Parameters
    ----------
    trial : what is trained.
    train : called in the new process with its messages and signals. Warnings and errors become lines of `read_lines`.

    Raises
    ------
    ResourceError
        The limit on processes is reached.
    """

    def __init__(self, trial: Trial, train: Callable[[Messages, Interruption], object]) -> None:
        self.trial = trial
        self.exit_code: int | None = None
        self.errors: list[str] = []
        self._partial_line = b""
        own_pid = os.getpid()
        self.pipe, write_end = os.pipe()
        os.set_blocking(self.pipe, False)
        # A signal before the new process can handle it waits until then.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            gc.freeze()  # the collector would write to, and so copy, pages that the processes share
            with reporting_process_limit(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
                self.pid = os.fork()
            if self.pid == 0:
                _train_and_exit(train, own_pid, write_end, mask)
            gc.unfreeze()
        except BaseException:
            os.close(self.pipe)
            raise
        finally:
            os.close(write_end)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def stop(self, number: int) -> None:
        """Send a signal to the training, which saves and ends."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """Return whether the process has ended; then `exit_code` is set, negative if a signal killed it."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is not None

    def read_lines(self) -> list[str]:
        """Return the lines that the process has printed since the last call."""
        while True:
            try:
                data = os.read(self.pipe, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._partial_line += data
        *lines, self._partial_line = self._partial_line.split(b"\n")
        if self.exit_code is not None and self._partial_line:
            lines, self._partial_line = [*lines, self._partial_line], b""
        return [text for line in lines if (text := line.decode(errors="replace").strip())]

    def close(self) -> None:
        """Close the pipe of a process that has ended."""
        os.close(self.pipe)


def _train_and_exit(
    train: Callable[[Messages, Interruption], object], parent: int, output: int, mask: set[int | signal.Signals]
) -> None:
    """Train in a new process, and end it."""
    exit_code = 1
    try:
        os.setpgid(0, 0)
        end_with_parent(parent)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((null, 0), (null, 1), (output, 2)):
            os.dup2(descriptor, target)
        # A new object: bars that this process inherits belong to the old one, and must not be drawn here.
        sys.stderr = os.fdopen(2, "w", errors="replace", closefd=False)
        interruption = Interruption(second_exits=False)
        with interruption.watching():
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            exit_code = _run(train, Messages(quiet=True), interruption)
            ignore_signals()
    except BaseException as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        remove_process_directory()
        sys.stderr.flush()
        os._exit(exit_code)


def _run(train: Callable[[Messages, Interruption], object], messages: Messages, interruption: Interruption) -> int:
    try:
        train(messages, interruption)
    except PartrainError as error:
        messages.error(str(error))
        return error.exit_code
    except MemoryError:
        messages.error("there is not enough memory for this process")
        return 1
    except BaseException as error:
        if (interrupted := interruption_behind(error)) is None:
            raise
        return interrupted.exit_code
    return 0
