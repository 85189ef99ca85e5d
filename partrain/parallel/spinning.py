"""Waiting without falling asleep: for a moment, and only where a processor would otherwise be idle.

A process that sleeps is woken by another processor, which on a virtual machine takes as long as a tenth of a small
step, and comes back with cold caches. One that asks again and again is there at once, but takes its processor from
whoever needs it: so no more processes compute or spin than there are processors, the coordinator, for whom one of those
that spin makes room, not counted; and who spins gives way to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

# Longer than a worker waits for its next command where steps are short, and than a coordinator then waits for an
# answer. Where they take longer, what a waking costs does not matter.
SPIN_SECONDS = 0.002


def spin(ask: Callable[[], Answer], seconds: float) -> Answer:
    """Ask until there is an answer, but no longer than a moment.

    Parameters
    ----------
    ask : returns soon, with something false if there is no answer yet; it gives way to others meanwhile.
    seconds : the moment.

    Returns
    -------
    What was answered at last.
    """
    end = time.monotonic() + seconds
    while not (answer := ask()) and time.monotonic() < end:
        pass
    return answer
