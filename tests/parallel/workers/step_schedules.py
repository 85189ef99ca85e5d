"""Runs the model of planned steps: all its interleavings, or random ones that replay from their seed."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from tests.parallel.workers.step_model import FAULTS, Case, StepModel, ViolationError
from tests.parallel.workers.step_protocol import ALL, Protocol

# How likely a fault happens in a transition, if it can.
FAULT_PROBABILITY = 0.03


def explore(case: Case, protocol: Protocol) -> int:
    """Visit all states that can be reached; return their number.

    Raises
    ------
    ViolationError
        A transition does something wrong; or from some state, the end cannot be reached without further faults.
    """
    model = StepModel(case, protocol)
    start = model.save()
    numbers, to_visit = {start: 0}, [start]
    earlier: defaultdict[int, list[int]] = defaultdict(list)
    ends = []
    while to_visit:
        state = to_visit.pop()
        number = numbers[state]
        model.restore(state)
        choices = model.choices()
        if not choices:
            ends.append(number)
        for k, choice in enumerate(choices):
            if k:
                model.restore(state)
            model.take(choice)
            following = model.save()
            if following not in numbers:
                numbers[following] = len(numbers)
                to_visit.append(following)
            if choice[0] not in FAULTS:
                earlier[numbers[following]].append(number)
    _check_progress(ends, earlier, len(numbers))
    return len(numbers)


def _check_progress(ends: list[int], earlier: dict[int, list[int]], num_states: int) -> None:
    reaching, to_visit = set(ends), list(ends)
    while to_visit:
        for number in earlier[to_visit.pop()]:
            if number not in reaching:
                reaching.add(number)
                to_visit.append(number)
    if len(reaching) < num_states:
        raise ViolationError(f"from {num_states - len(reaching)} of {num_states} states, the end cannot be reached")


def random_case(random_source: random.Random) -> Case:
    """Return a larger case; small ones are more frequent."""
    choose = random_source.randint
    num_steps = choose(2, 6)
    return Case(
        num_members=min(choose(3, 8), choose(3, 8)),
        num_steps=num_steps,
        capacity=choose(1, num_steps),
        num_deaths=choose(0, 4),
        num_refusals=choose(0, 2),
        num_errors=choose(0, 1),
        may_close_early=random_source.random() < 0.5,
    )


def run_schedule(seed: int, protocol: Protocol) -> None:
    """Run the random schedule of a seed.

    Raises
    ------
    ViolationError
        It names the seed and the case.
    """
    source = random.Random(seed)
    case = random_case(source)
    try:
        _run(StepModel(case, protocol), source)
    except ViolationError as violation:
        raise ViolationError(f"seed {seed}, {case}: {violation}") from None


def _run(model: StepModel, source: random.Random) -> None:
    uniform = source.random
    while not model.is_over:
        choices = model.choices()
        progress: list[Any] = [choice for choice in choices if choice[0] not in FAULTS]
        if not progress:
            raise ViolationError("all wait for each other")
        if len(progress) < len(choices) and uniform() < FAULT_PROBABILITY:
            progress = [choice for choice in choices if choice[0] in FAULTS]
        choice = progress[int(uniform() * len(progress))]
        budget = ALL if uniform() < 0.6 else 1
        num_transitions = 1 if uniform() < 0.7 else 5
        model.take(choice, budget)
        # Now and then one process runs for longer than the others.
        for _ in range(num_transitions - 1):
            if choice[0] != "go on" or choice not in model.choices():
                break
            model.take(choice, ALL)
