"""Bugs that the model must find in the protocol of planned steps: each is one or more edits of its sources."""

from __future__ import annotations

from partrain.kernels.ipc import step_ring
from partrain.parallel.workers import planned_steps
from tests.parallel.workers.step_protocol import Edit


def _ring(*edits: tuple[str, str]) -> list[Edit]:
    return [Edit(step_ring, old, new) for old, new in edits]


def _steps(*edits: tuple[str, str]) -> list[Edit]:
    return [Edit(planned_steps, old, new) for old, new in edits]


_LOOK = "if atomic_load(words, LINE * (1 + member) + report) < step:"
_MEMBERS = "    for member in range(num_members):\n        " + _LOOK
_ORDER = "closed = atomic_load(words, CLOSED)\n"

PLANTED_BUGS: dict[str, list[Edit]] = {
    "COMPUTED is reported before the tiles are computed": _ring(
        ("AWAIT_PLAN: (COMPUTE, LEFT)", "AWAIT_PLAN: (MEET_COMPUTED, LEFT)"),
        ("MEET_COMPUTED: (UPDATE, LEFT)", "MEET_COMPUTED: (COMPUTE, LEFT)"),
        ("    COMPUTE: (MEET_COMPUTED, LEFT)", "    COMPUTE: (UPDATE, LEFT)"),
    ),
    "UPDATED is reported before the new values are written": _ring(
        ("MEET_COMPUTED: (UPDATE, LEFT)", "MEET_COMPUTED: (MEET_UPDATED, LEFT)"),
        ("MEET_UPDATED: (AWAIT_PLAN, LEFT)", "MEET_UPDATED: (UPDATE, LEFT)"),
        ("UPDATE: (MEET_UPDATED, REFUSE)", "UPDATE: (AWAIT_PLAN, LEFT)"),
    ),
    "nobody waits until all have computed": _ring(
        ("    COMPUTE: (MEET_COMPUTED, LEFT)", "    COMPUTE: (UPDATE, LEFT)")
    ),
    "nobody waits until all have updated": _ring(("UPDATE: (MEET_UPDATED, REFUSE)", "UPDATE: (AWAIT_PLAN, REFUSE)")),
    "REFUSED is forgotten": _ring(("UPDATE: (MEET_UPDATED, REFUSE)", "UPDATE: (MEET_UPDATED, MEET_UPDATED)")),
    "members do not look at REFUSED": _ring(("    if report == UPDATED:", "    if report == -1:")),
    "any earlier step counts as refused": _ring(("+ REFUSED) == step:", "+ REFUSED) < step:")),
    "meetings ignore that the series is abandoned": _ring(
        ("return LEAVE if atomic_load(words, ABANDONED) else NOT_YET", "return NOT_YET")
    ),
    "members that await a plan ignore that the series is abandoned": _ring(
        ("if atomic_load(words, ABANDONED) or 0 < closed < step:", "if 0 < closed < step:")
    ),
    "a closed series is left at once, and CLOSED is read after PLANNED": _ring(
        (_ORDER, "planned = atomic_load(words, PLANNED)\n"),
        ("0 < closed < step", "(atomic_load(words, CLOSED) and planned < step)"),
        ("if atomic_load(words, PLANNED) >= step", "if planned >= step"),
    ),
    "the last member is not waited for": _ring((_MEMBERS, _MEMBERS.replace("num_members", "num_members - 1"))),
    "a report of the step before counts": _ring((_LOOK, _LOOK.replace("< step", "< step - 1"))),
    "a step begins before it is planned": _ring(
        ("atomic_load(words, PLANNED) >= step", "atomic_load(words, PLANNED) >= step - 1")
    ),
    "a meeting does not report": _ring(("    atomic_store(words, LINE * (1 + member) + report, step)\n", "")),
    "the first member alone decides what all have reported": _ring(
        ("    for member in range(1, num_members):", "    for member in range(0):")
    ),
    "new moments overwrite the current ones": _ring(("return step % 2", "return 0")),
    "new parameters overwrite the current ones": _ring(("return (step - first_step + 1) % 2", "return 0")),
    "the first step reads the wrong parameters": _ring(
        ("return (step - first_step + 1) % 2", "return (step - first_step) % 2")
    ),
    "parameters alternate as if all series began with step 1": _ring(
        ("return (step - first_step + 1) % 2", "return step % 2")
    ),
    "a refused step counts as complete": _ring(("return last - 1", "return last")),
    "the step after a refused one counts as refused": _ring(("+ REFUSED) == last:", "+ REFUSED) == last - 1:")),
    "completion goes by the fastest member": _ring(("last = min(last,", "last = max(last,")),
    "completion goes by COMPUTED": _ring(
        ("last = atomic_load(words, LINE + UPDATED)", "last = atomic_load(words, LINE + COMPUTED)"),
        (
            "last = min(last, atomic_load(words, LINE * (1 + member) + UPDATED))",
            "last = min(last, atomic_load(words, LINE * (1 + member) + COMPUTED))",
        ),
    ),
    "end() does not copy the parameters": _steps(("first_step) == 1:", "first_step) == 2:")),
    "end() copies the parameters of a step that is not complete": _steps(("first_step) == 1:", "first_step) >= 0:")),
    "end() returns the step after the last complete one": _steps(
        ('["steps.parameters"]\n        return last\n', '["steps.parameters"]\n        return last + 1\n')
    ),
    "a plan is announced before it is written": _steps(
        (
            '        with np.errstate(over="ignore"):',
            '        self._write(step_ring.PLANNED, steps[-1].step)\n        with np.errstate(over="ignore"):',
        )
    ),
    "a series is closed before its last planned step": _steps(
        ("int(self._words[step_ring.PLANNED]))", "int(self._words[step_ring.PLANNED]) - 1)")
    ),
    "abandon() closes the series instead": _steps(("self._write(step_ring.ABANDONED, 1)", "self.close()")),
    "open() leaves the words of the last series": _steps(("        self._words[:] = 0\n", "")),
    "open() lets the first step count as made": _steps(
        ("+ step_ring.REFUSED] = first_step - 1", "+ step_ring.REFUSED] = first_step")
    ),
}
