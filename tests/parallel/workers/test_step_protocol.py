"""The protocol of planned steps in all interleavings of a small model, and in random ones of larger models."""

from __future__ import annotations

import os

import pytest

from tests.parallel.workers.planted_bugs import PLANTED_BUGS
from tests.parallel.workers.step_model import Case, ViolationError
from tests.parallel.workers.step_protocol import Protocol
from tests.parallel.workers.step_schedules import explore, run_schedule

# All 100,000 take nine minutes of one processor: PARTRAIN_SCHEDULES=100000.
NUM_SCHEDULES, NUM_PARTS = int(os.environ.get("PARTRAIN_SCHEDULES", "10000")), 4
NUM_SEEDS_FOR_A_BUG = 3000


@pytest.mark.parametrize("case", [
    Case(num_steps=1),
    Case(num_steps=1, num_deaths=0, num_refusals=1, num_errors=1),
    Case(num_deaths=0, may_close_early=True),
    Case(capacity=1),
])  # fmt: skip
def test_no_interleaving_of_two_members_and_the_coordinator_breaks_a_step(case: Case) -> None:
    assert explore(case, Protocol()) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("faults", [
    {"num_deaths": 1, "num_refusals": 1, "may_close_early": True},
    {"num_deaths": 2},
    {"num_deaths": 0, "num_refusals": 2, "num_errors": 1, "may_close_early": True},
])  # fmt: skip
def test_no_interleaving_with_several_faults_breaks_a_step(faults: dict[str, int], capacity: int) -> None:
    assert explore(Case(capacity=capacity, **faults), Protocol()) > 10_000


def test_no_random_schedule_of_a_larger_case_breaks_a_step() -> None:
    protocol = Protocol()
    for seed in range(400):
        run_schedule(seed, protocol)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_no_schedule_of_many_breaks_a_step(part: int) -> None:
    protocol = Protocol()
    for seed in range(part, NUM_SCHEDULES, NUM_PARTS):
        run_schedule(seed, protocol)


def first_failure(protocol: Protocol) -> tuple[int, str]:
    """Return the first seed whose schedule fails, and its message."""
    for seed in range(NUM_SEEDS_FOR_A_BUG):
        try:
            run_schedule(seed, protocol)
        except ViolationError as violation:
            return seed, str(violation)
    pytest.fail("no schedule finds the bug")


@pytest.mark.parametrize("bug", PLANTED_BUGS)
def test_planted_bug_is_found(bug: str) -> None:
    seed, message = first_failure(Protocol(PLANTED_BUGS[bug]))
    assert message.startswith(f"seed {seed}, Case(")


def test_failing_schedule_replays_from_its_seed() -> None:
    edits = PLANTED_BUGS["end() does not copy the parameters"]
    seed, message = first_failure(Protocol(edits))
    with pytest.raises(ViolationError) as raised:
        run_schedule(seed, Protocol(edits))
    assert str(raised.value) == message


def test_exploration_finds_a_state_without_a_way_out() -> None:
    edits = PLANTED_BUGS["meetings ignore that the series is abandoned"]
    with pytest.raises(ViolationError, match="the end cannot be reached"):
        explore(Case(num_steps=1), Protocol(edits))
