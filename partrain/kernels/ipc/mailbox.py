"""Commands and answers through shared memory, without a system call while the other process is awake.

Each worker has a box. The coordinator writes a command into it and increments `POSTED`; the worker carries it out, and
then writes that count to `DONE`. Each word has one writer, so a killed process leaves no lock behind.

A process that waits sets its word `ASLEEP`, looks once more, and then sleeps on its pipe. A process that posts or
answers writes its word first, and then looks whether the other one sleeps. All atomic operations have one order, so at
least one of the two sees the other's word (the core of Dekker's algorithm); at worst a process is woken needlessly.

Source: Dijkstra, "Cooperating sequential processes", EWD 123, 1965.
"""

from __future__ import annotations

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.ipc.atomics import atomic_load, atomic_store, relax_processor, yield_processor
from partrain.kernels.ipc.signal_words import LINE

# A box has three cache lines. The coordinator writes the first one (POSTED, then the command), the worker the second
# one, and the coordinator keeps the number of the last answer that it took on the third. A line before the boxes says
# whether the coordinator sleeps.
POSTED, DONE, ASLEEP, TAKEN = 0, LINE, LINE + 1, 2 * LINE
BOX = 3 * LINE
COORDINATOR_ASLEEP = 0
# Numbers in a command. They are on the line of POSTED, after the word that says whether another command follows.
FIELDS = 5
# Number of polls before a waiting process yields its processor: a few microseconds.
NUM_POLLS = 100


def size(num_workers: int) -> int:
    """Return the number of int64 in `boxes`."""
    return LINE + BOX * num_workers


def box_of(worker: int) -> int:
    """Return the index at which the box of a worker, counted from 0, begins."""
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
    """Write a command into a box, and count it; return whether its worker must be woken."""
    boxes[box + POSTED + 1] = more_follows
    for k in range(FIELDS):
        boxes[box + POSTED + 2 + k] = command[k]
    atomic_store(boxes, box + POSTED, boxes[box + POSTED] + 1)
    return atomic_load(boxes, box + ASLEEP) != 0


@kernel("boolean(int64[::1], int64, int64, int64)")
def await_command(boxes, box, last, num_yields):
    """Poll for a command after number `last`, yielding up to `num_yields` times; return whether there is one."""
    for _ in range(num_yields):
        for _ in range(NUM_POLLS):
            if atomic_load(boxes, box + POSTED) != last:
                return True
            relax_processor()
        yield_processor()
    return atomic_load(boxes, box + POSTED) != last


@kernel("boolean(int64[::1], int64, int64)")
def answer(boxes, box, number):
    """Report that command `number` has been carried out; return whether the coordinator must be woken."""
    atomic_store(boxes, box + DONE, number)
    return atomic_load(boxes, COORDINATOR_ASLEEP) != 0


@kernel("int64(int64[::1], int64, int64)")
def await_answer(boxes, num_workers, num_yields):
    """Poll for an answer, yielding up to `num_yields` times; take it and return its worker, or -1 if there is none."""
    for _ in range(num_yields):
        for _ in range(NUM_POLLS):
            worker = _answered(boxes, num_workers)
            if worker >= 0:
                return worker
            relax_processor()
        yield_processor()
    return _answered(boxes, num_workers)


@kernel("void(int64[::1], int64, int64)")
def say(boxes, place, number):
    """Write a word that other processes read; the next look at shared memory comes after it."""
    atomic_store(boxes, place, number)
