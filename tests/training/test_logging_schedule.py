"""Which session's settings decide what is logged at a step."""

from __future__ import annotations

import itertools

import numpy as np

from partrain.training.logging_schedule import LoggedSession, LoggingSchedule


def test_last_session_that_starts_before_a_step_decides_in_whatever_order_steps_are_asked_for() -> None:
    # The third session went back to step 4, so it replaces what the second had made after it.
    starts = {0: 2, 10: 3, 4: 5, 20: 7}
    sessions = [LoggedSession(start, 100, every, None, None, None) for start, every in starts.items()]
    expected = {
        step: next(every for start, every in reversed(starts.items()) if start < max(step, 1)) for step in range(40)
    }
    for seed in range(20):
        schedule = LoggingSchedule(5, sessions)
        for step in np.random.default_rng(seed).permutation(40).tolist():
            assert schedule.is_regular(step) == (step % expected[step] == 0)
    for step, last in itertools.product(range(1, 12), (3, 9)):
        assert LoggingSchedule(5, [LoggedSession(0, last, 1, None, None, None)]).is_last(step) == (step >= last)
