"""The coordinator's view of one worker: its process, its pipes, and the command that it has."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection

from partrain.parallel.workers.commands import Command, StepsCommand
from partrain.parallel.workers.mailboxes import WAKE
from partrain.parallel.workers.process import WorkerProcess
from partrain.parallel.workers.worker import REPLY_BYTES


@dataclass
class Task:
    """A command, and how often it has failed with an exception."""

    command: Command | StepsCommand
    num_failures: int = 0


@dataclass(eq=False)
class WorkerHandle:
    """One worker.

    Attributes
    ----------
    name, number : for messages and for the mailbox; counted from 0.
    process : the worker's process.
    commands, replies : the coordinator's ends of the two pipes.
    task : the command that the worker has, or None.
    has_begun : whether the worker has said hello.
    silent_s : how long the worker has been silent, as far as the coordinator listened.
    """

    name: str
    number: int
    process: WorkerProcess
    commands: Connection
    replies: Connection
    task: Task | None = None
    has_begun: bool = False
    silent_s: float = 0.0

    def wake(self) -> None:
        """Wake the worker. If it has died, do nothing: the end of its pipe will show that."""
        with contextlib.suppress(ConnectionError):
            os.write(self.commands.fileno(), WAKE)

    def read(self) -> bytes:
        """Return what the worker sent through its pipe; empty if the worker has died."""
        try:
            return os.read(self.replies.fileno(), 2 * REPLY_BYTES)
        except ConnectionError:
            return b""

    def close_pipes(self) -> None:
        """Close both pipes; a worker that is alive then ends."""
        self.commands.close()
        self.replies.close()
