from __future__ import annotations

from partrain.parallel.workers.turns import TURN_RUNS, Turns

WORKERS = [f"worker {k}" for k in range(5)]


def test_each_series_is_a_turn_of_the_next_workers() -> None:
    turns = Turns(WORKERS, 2)
    assert [[name[-1] for name in turns.next_series()] for _ in range(5)] == [
        ["0", "1"], ["2", "3"], ["4", "0"], ["1", "2"], ["3", "4"],
    ]  # fmt: skip
    assert not turns.continues


def test_a_series_ends_the_turn_of_the_runs_before_it() -> None:
    turns = Turns(WORKERS, 2)
    assert turns.next(8) == WORKERS[:2]
    assert turns.next_series() == WORKERS[:2]
    assert [turns.next(8) for _ in range(TURN_RUNS)] == [WORKERS[2:4]] * TURN_RUNS
    assert turns.next_series() == [WORKERS[4], WORKERS[0]]


def test_workers_that_all_compute_at_once_go_on_after_a_series() -> None:
    turns = Turns(WORKERS, 5)
    for _ in range(2):
        assert turns.next_series() == WORKERS
        assert turns.continues
        turns = Turns(WORKERS, 5)
