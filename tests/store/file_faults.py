"""Faults in the file functions of `os`, for tests: the k-th call fails, or kills the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

FILE_FUNCTIONS = ("open", "write", "ftruncate", "fsync", "close", "replace", "rename", "mkdir", "unlink")


class CallCounter:
    """The calls of the replaced functions so far, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []


@contextmanager
def fault_at_call(number: int, fault: Callable[[], object]) -> Iterator[CallCounter]:
    """Call `fault` in the number-th call of a file function (from 1), in place of its end.

    A write gets half of its bytes out first, and a close closes, as with real disks.
    """
    counter = CallCounter()

    def faulty(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            counter.names.append(name)
            if len(counter.names) != number:
                return original(*args, **options)
            if name == "write":
                descriptor, data = args
                original(descriptor, data[: len(data) // 2])
            if name == "close":
                original(*args)
            return fault()

        return call

    replaced = {name: faulty(name, getattr(os, name)) for name in FILE_FUNCTIONS}
    with mock.patch.multiple(os, **replaced):
        yield counter


@contextmanager
def recorded_calls() -> Iterator[CallCounter]:
    """Record the calls of the file functions; all of them work."""
    with fault_at_call(0, lambda: None) as counter:
        yield counter


def kill_this_process() -> None:
    """Die at once, as by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
