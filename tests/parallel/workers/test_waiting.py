from __future__ import annotations

import itertools
import time

import pytest

from partrain.parallel.workers.waiting import PERIOD_RUNS, TRIAL_RUNS, SpinPolicy, spin


def test_what_is_answered_ends_it() -> None:
    answers = iter([[], [], ["here"]])
    assert spin(lambda: next(answers), 600.0) == ["here"]


def test_without_an_answer_it_ends_with_its_moment() -> None:
    questions = itertools.count()
    begin = time.monotonic()
    assert spin(lambda: [] if next(questions) >= 0 else ["never"], 0.01) == []
    assert time.monotonic() - begin >= 0.01
    assert next(questions) > 1


@pytest.mark.parametrize(("spinning", "sleeping", "best"), [(1.0, 1.2, True), (1.0, 0.95, True), (2.0, 1.0, False)])
def test_what_was_faster_in_a_trial_is_done_until_the_next_one(spinning: float, sleeping: float, best: bool) -> None:
    policy = SpinPolicy()
    for _ in range(3):
        spins = []
        for number in range(PERIOD_RUNS):
            spins.append(policy.spins)
            was_disturbed = number % TRIAL_RUNS in (0, 3)
            policy.record(50.0 if was_disturbed else spinning if policy.spins else sleeping)
        assert spins[:TRIAL_RUNS] == [True] * TRIAL_RUNS
        assert spins[TRIAL_RUNS : 2 * TRIAL_RUNS] == [False] * TRIAL_RUNS
        assert spins[2 * TRIAL_RUNS :] == [best] * (PERIOD_RUNS - 2 * TRIAL_RUNS)


def test_what_is_faster_may_change() -> None:
    policy = SpinPolicy()
    for sleeping in (0.5, 2.0):
        for _ in range(PERIOD_RUNS):
            last = policy.spins
            policy.record(1.0 if policy.spins else sleeping)
        assert last is (sleeping > 1)
