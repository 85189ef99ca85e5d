"""Commands and answers through memory that processes share, without a system call where the other side is awake.

Each worker has a box. The coordinator writes a command into it and counts `POSTED` up; the worker does what it says,
and then writes that count to `DONE`. Every word has one writer, so nobody who is killed leaves a lock behind.

Who finds nothing, and does not want to look any longer, says that it sleeps, looks once more, and sleeps on its pipe.
Who posts, or answers, does so first and looks for sleepers then. As all atomic operations have one order, it cannot
be that neither sees the other (it is the core of Dekker's algorithm); at worst somebody is woken for nothing.

Source: Dijkstra, "Cooperating sequential processes", EWD 123, 1965.
"""

from __future__ import annotations

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.ipc.atomics import atomic_load, atomic_store, relax_processor, yield_processor
from partrain.kernels.ipc.signal_words import LINE

# A box is three lines: what the coordinator writes for the worker (the command is behind POSTED), what the worker
# writes for the coordinator, and what the coordinator keeps for itself, the last answer that it took. On a line before
# the boxes it says whether it sleeps.
POSTED, DONE, ASLEEP, TAKEN = 0, LINE, LINE + 1, 2 * LINE
BOX = 3 * LINE
COORDINATOR_ASLEEP = 0
# How many numbers a command has. They are on the line of POSTED, and before them whether more follows.
FIELDS = 5
# What a worker finds.
NOTHING, CALL, COMMAND = 0, 1, 2
# How often one looks before one gives way to others: a few microseconds.
LOOKS = 100


def size(num_workers: int) -> int:
    """Return how many int64 `boxes` holds."""
    return LINE + BOX * num_workers


def box_of(worker: int) -> int:
    """Return where the box of a worker, counted from 0, begins."""
    return LINE + BOX * worker


@inlined
def _answered(boxes, num_workers):
    for worker in range(num_workers):
        box = LINE + BOX * worker
        done = atomic_load(boxes, box + DONE)
        if done != boxes[box + TAKEN]:
            boxes[box + TAKEN] = done
            return worker
    return -1


@kernel(f"boolean(int64[::1], int64, boolean, UniTuple(int64, {FIELDS}))")
def post(boxes, box, more_follows, command):
    """Write a command into a box, and count it; return whether its worker is to be woken."""
    boxes[box + POSTED + 1] = more_follows
    for k in range(FIELDS):
        boxes[box + POSTED + 2 + k] = command[k]
    atomic_store(boxes, box + POSTED, boxes[box + POSTED] + 1)
    return atomic_load(boxes, box + ASLEEP) != 0


@inlined
def _news(boxes, box, last, calls, last_call):
    if atomic_load(boxes, box + POSTED) != last:
        return COMMAND
    return CALL if atomic_load(calls, 0) != last_call else NOTHING


@kernel("int64(int64[::1], int64, int64, int64[::1], int64, int64)")
def await_news(boxes, box, last, calls, last_call, turns):
    """Look for a command after number `last`, or calls[0] other than `last_call`; and `turns` times again.

    Returns
    -------
    COMMAND, CALL or NOTHING.
    """
    for _ in range(turns):
        for _ in range(LOOKS):
            news = _news(boxes, box, last, calls, last_call)
            if news != NOTHING:
                return news
            relax_processor()
        yield_processor()
    return _news(boxes, box, last, calls, last_call)


@kernel("boolean(int64[::1], int64, int64)")
def answer(boxes, box, number):
    """Say that command `number` has been carried out; return whether the coordinator is to be woken."""
    atomic_store(boxes, box + DONE, number)
    return atomic_load(boxes, COORDINATOR_ASLEEP) != 0


@kernel("int64(int64[::1], int64, int64)")
def await_answer(boxes, num_workers, turns):
    """Look for an answer, and `turns` times again; take it, and return the number of its worker, or -1."""
    for _ in range(turns):
        for _ in range(LOOKS):
            worker = _answered(boxes, num_workers)
            if worker >= 0:
                return worker
            relax_processor()
        yield_processor()
    return _answered(boxes, num_workers)


@kernel("void(int64[::1], int64, int64)")
def say(boxes, place, number):
    """Write a word that others read, before whatever is looked at next."""
    atomic_store(boxes, place, number)
