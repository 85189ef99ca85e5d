"""The words by which workers make training steps together, without the coordinator.

The coordinator plans steps ahead of time; the workers that make them are the *members* of a series of steps. In each
step, a member

    computes its tiles              and reports COMPUTED
    computes its pieces of the      and reports UPDATED; new values are written beside the current ones
    update

After each report it waits until all members have reported the same. So a step is *complete* as soon as all have
reported UPDATED: the new parameters and moments exist as a whole, and the next step overwrites the old ones, which
nobody reads any more. If a member dies before that, the step has changed nothing.

A member that finds a value that is not finite reports the step as REFUSED before UPDATED; then it is never complete.
`after` says what a member does next; the model in the tests explores it together with the looks at the words.

Each word has one writer and only grows, so a killed process leaves no lock behind. Indices count int64.
"""

from __future__ import annotations

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.ipc.atomics import atomic_load, atomic_store, relax_processor, yield_processor
from partrain.kernels.ipc.signal_words import LINE

# Words of the coordinator: the last step that is planned; the last step of the series, or 0 while that is open; and
# whether the series is abandoned.
PLANNED, CLOSED, ABANDONED = range(3)
# Words of a member, on a cache line of its own: the last step of which it has reported each of these.
COMPUTED, UPDATED, REFUSED = range(3)
# Results of waiting.
NOT_YET, ARRIVED, LEAVE = range(3)
# What a member does.
AWAIT_PLAN, COMPUTE, MEET_COMPUTED, UPDATE, REFUSE, MEET_UPDATED, LEFT = range(7)
# What it reports in a meeting.
REPORTS = {MEET_COMPUTED: COMPUTED, MEET_UPDATED: UPDATED}
# What it does next if that succeeded, and if not: it waited, and is to leave; or a new value is not finite.
_NEXT = {
    AWAIT_PLAN: (COMPUTE, LEFT),
    COMPUTE: (MEET_COMPUTED, LEFT),
    MEET_COMPUTED: (UPDATE, LEFT),
    UPDATE: (MEET_UPDATED, REFUSE),
    REFUSE: (MEET_UPDATED, LEFT),
    MEET_UPDATED: (AWAIT_PLAN, LEFT),
}
# Number of polls before a waiting process yields its processor: a few microseconds.
NUM_POLLS = 100


def size(num_members: int) -> int:
    """Return the number of int64 in `words`."""
    return LINE * (1 + num_members)


def words_of(member: int) -> int:
    """Return the index at which the words of a member, counted from 0, begin."""
    return LINE * (1 + member)


def after(action: int, step: int, succeeded: bool) -> tuple[int, int]:
    """Return what a member does after `action`, and in which step."""
    following = _NEXT[action][not succeeded]
    return following, step + (following == AWAIT_PLAN)


def moments_row(step: int) -> int:
    """Return the row of the shared moments that holds those after `step`; the other one is for the next step."""
    return step % 2


def parameters_row(step: int, first_step: int) -> int:
    """Return which of two vectors holds the parameters after `step`; 0 holds those before the first step."""
    return (step - first_step + 1) % 2


@inlined
def _look_for_plan(words, step):
    # CLOSED is read first: a step that is planned after this look is planned when the series is closed, too.
    closed = atomic_load(words, CLOSED)
    if atomic_load(words, ABANDONED) or 0 < closed < step:
        return LEAVE
    return ARRIVED if atomic_load(words, PLANNED) >= step else NOT_YET


@kernel("int64(int64[::1], int64, int64)")
def await_plan(words, step, num_yields):
    """Poll until `step` is planned (ARRIVED), or the series is closed before it or abandoned (LEAVE).

    Parameters
    ----------
    num_yields : how often to yield the processor before the result is NOT_YET.
    """
    for _ in range(num_yields):
        for _ in range(NUM_POLLS):
            found = _look_for_plan(words, step)
            if found != NOT_YET:
                return found
            relax_processor()
        yield_processor()
    return _look_for_plan(words, step)


@inlined
def _look_for_members(words, num_members, report, step):
    for member in range(num_members):
        if atomic_load(words, LINE * (1 + member) + report) < step:
            return LEAVE if atomic_load(words, ABANDONED) else NOT_YET
    if report == UPDATED:
        for member in range(num_members):
            if atomic_load(words, LINE * (1 + member) + REFUSED) == step:
                return LEAVE
    return ARRIVED


@kernel("int64(int64[::1], int64, int64, int64, int64, int64)")
def meet(words, member, num_members, report, step, num_yields):
    """Report, and poll until all members have reported the same (ARRIVED).

    Parameters
    ----------
    words : int64, of length `size`.
    member, num_members : index of this member, and the number of members.
    report : COMPUTED or UPDATED.
    step : the step that this is about.
    num_yields : how often to yield the processor before the result is NOT_YET; then call again.

    Returns
    -------
    ARRIVED; NOT_YET; LEAVE: the series is abandoned, or after UPDATED a member has refused the step.
    """
    atomic_store(words, LINE * (1 + member) + report, step)
    for _ in range(num_yields):
        for _ in range(NUM_POLLS):
            found = _look_for_members(words, num_members, report, step)
            if found != NOT_YET:
                return found
            relax_processor()
        yield_processor()
    return _look_for_members(words, num_members, report, step)


@kernel("void(int64[::1], int64, int64)")
def write_word(words, place, number):
    """Write a word; all earlier writes of this process are visible to whoever reads it."""
    atomic_store(words, place, number)


@kernel("int64(int64[::1], int64)")
def last_complete(words, num_members):
    """Return the last step that all members have updated and none has refused."""
    last = atomic_load(words, LINE + UPDATED)
    for member in range(1, num_members):
        last = min(last, atomic_load(words, LINE * (1 + member) + UPDATED))
    for member in range(num_members):
        if last > 0 and atomic_load(words, LINE * (1 + member) + REFUSED) == last:
            return last - 1
    return last
