"""A switch for tests: it kills this process at a named point of the code.

`PARTRAIN_KILL_AT="<point>|<passing>"` names a point and which passing of it, counted from 1 in each process, is the
last. With `"<point>|<passing>|<file>"` a process dies only if it is the one that removes the file: so of several
workers, and of their successors, one dies. Workers find the variable as it was when the fork server started.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "PARTRAIN_KILL_AT"

_wanted = os.environ.get(VARIABLE)
_num_passed = 0


def kill_point(name: str) -> None:
    """Pass a point of the code; where the switch is not set, as outside of tests, that is one `if`."""
    if _wanted is not None:
        _pass(name, _wanted)


def _pass(name: str, wanted: str) -> None:
    global _num_passed
    point, passing, *token = wanted.split("|")
    if name != point:
        return
    _num_passed += 1
    if _num_passed != int(passing):
        return
    try:
        for path in token:
            os.unlink(path)
    except FileNotFoundError:
        return  # another process has died in its place
    os.kill(os.getpid(), signal.SIGKILL)
