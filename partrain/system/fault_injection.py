"""Fault injection for tests: kills this process at a named point of the code.

`PARTRAIN_KILL_AT="<point>|<n>"` kills a process when it passes the point for the n-th time, counted from 1 in each
process. With `"<point>|<n>|<file>"`, a process dies only if it is the one that deletes the file, so that only one of
several workers and their successors dies. Workers see the variable as it was when the fork server started.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "PARTRAIN_KILL_AT"

_wanted = os.environ.get(VARIABLE)
_num_passed = 0


def kill_point(name: str) -> None:
    """Mark a point where tests can kill the process; outside of tests it costs one `if`."""
    if _wanted is not None:
        _count_pass(name, _wanted)


def _count_pass(name: str, wanted: str) -> None:
    global _num_passed
    point, number, *token = wanted.split("|")
    if name != point:
        return
    _num_passed += 1
    if _num_passed != int(number):
        return
    try:
        for path in token:
            os.unlink(path)
    except FileNotFoundError:
        return  # another process has died instead
    os.kill(os.getpid(), signal.SIGKILL)
