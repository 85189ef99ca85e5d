"""Processes, read from /proc, and waiting for them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

# A process that must end has this long to do so; it takes about a second.
GONE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class ProcessEntry:
    """A process that has not ended (a zombie has); `state` is the letter of proc(5), such as T for a stopped one."""

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    command: str


def read_process(pid: int) -> ProcessEntry | None:
    """Return a process, or None if it has ended."""
    path = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError, ValueError):
        # The second field, the program's name in brackets, may itself contain spaces and brackets.
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if fields[0] not in "ZX":
            parent, session, ticks = int(fields[1]), int(fields[3]), int(fields[11]) + int(fields[12])
            return ProcessEntry(pid, fields[0], parent, session, ticks, command)
    return None


def list_processes() -> list[ProcessEntry]:
    """Return all running processes; an empty list on a system without /proc."""
    entries = [read_process(int(path.name)) for path in Path("/proc").glob("[0-9]*")]
    return [entry for entry in entries if entry is not None]


def descendants_of(pid: int) -> list[ProcessEntry]:
    """Return the children of a process that have not ended, their children, and so on."""
    children: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children |= {int(child) for child in path.read_text().split()}
    return [entry for child in children for entry in (read_process(child), *descendants_of(child)) if entry is not None]


def fork_servers_of(pid: int, entries: Sequence[ProcessEntry]) -> list[int]:
    """Return the process ids of the fork servers of a program: its children that have children."""
    parents = {entry.parent for entry in entries}
    return [entry.pid for entry in entries if entry.parent == pid and entry.pid in parents]


def workers_of(pid: int, entries: Sequence[ProcessEntry]) -> list[ProcessEntry]:
    """Return the workers of a program: the children of its fork server."""
    servers = fork_servers_of(pid, entries)
    return [entry for entry in entries if entry.parent in servers]


def is_running(pid: int) -> bool:
    """Tell whether a process has not ended yet."""
    return read_process(pid) is not None


def wait_until(condition: Callable[[], Any], purpose: str, seconds: float = GONE_SECONDS) -> Any:
    """Return the first true value of `condition`; fail if there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{purpose}: not within {seconds:g} s")
        time.sleep(0.01)
    return value


def wait_for_the_end_of(processes: Callable[[], list[ProcessEntry]], purpose: str) -> None:
    """Wait until `processes` returns none; those that are left after `GONE_SECONDS` are killed, and the test fails."""
    deadline = time.monotonic() + GONE_SECONDS
    while left := processes():
        if time.monotonic() > deadline:
            for entry in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry.pid, signal.SIGKILL)
            pytest.fail(f"{purpose} were left and had to be killed: {left}")
        time.sleep(0.01)
