from __future__ import annotations

import pytest

from partrain.errors import FailedRun
from partrain.parallel.mpi import liveness
from partrain.parallel.mpi.liveness import LATE_SECONDS, SILENT_SECONDS, WARN_SECONDS, LivenessCheck

# A rank looks far more often; so it does in these tests take fewer calls.
LOOK_SECONDS = 0.5
WAITING, BUSY = True, False


class Wait:
    """A rank that waits, and what it hears of the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.now, self.num_questions = 1000.0, 0
        others = [other for other in range(size) if other != rank]
        self.check = LivenessCheck(rank, [f"rank {k} on host-{k}" for k in range(size)], others, self.now)
        self.warnings: list[str] = []

    def go_on(self, seconds: float, answers: dict[int, bool]) -> None:
        """Wait, while others answer whether they wait, too."""
        end = self.now + seconds
        while self.now < end:
            if self.check.must_ask(self.now):
                self.num_questions += 1
                for other, is_waiting in answers.items():
                    self.check.record_answer(other, is_waiting)
                self.check.check(self.warnings.append)
            self.now += LOOK_SECONDS


def test_silent_rank_is_named_first_in_a_warning_and_then_ends_the_job() -> None:
    wait = Wait(0, 3)
    wait.go_on(WARN_SECONDS, {1: WAITING})
    assert wait.warnings == []
    wait.go_on(2 * liveness.ASK_SECONDS, {1: WAITING})
    (warning,) = wait.warnings
    assert "rank 2 on host-2" in warning
    assert "rank 1" not in warning
    with pytest.raises(FailedRun, match="no answer from rank 2 on host-2 for 60 s"):
        wait.go_on(SILENT_SECONDS, {1: WAITING})


def test_rank_that_answers_again_is_waited_for() -> None:
    wait = Wait(0, 2)
    wait.go_on(SILENT_SECONDS - 2 * liveness.ASK_SECONDS, {})
    wait.go_on(SILENT_SECONDS, {1: BUSY})
    wait.go_on(SILENT_SECONDS - 2 * liveness.ASK_SECONDS, {})


def test_late_rank_that_answers_is_waited_for_and_named_at_longer_and_longer_intervals() -> None:
    wait = Wait(0, 3)
    wait.go_on(1000, {1: WAITING, 2: BUSY})
    assert 4 <= len(wait.warnings) <= 6
    assert all("waiting for rank 2 on host-2 for" in warning for warning in wait.warnings)
    with pytest.raises(FailedRun, match="3600 s for rank 2 on host-2: every process answers"):
        wait.go_on(LATE_SECONDS, {1: WAITING, 2: BUSY})


def test_of_the_ranks_that_wait_the_first_one_warns() -> None:
    last = Wait(2, 3)
    last.go_on(WARN_SECONDS + 2 * liveness.ASK_SECONDS, {0: WAITING})
    assert last.warnings == []
    # The first one is itself waited for, and does not see it.
    last = Wait(2, 3)
    last.go_on(WARN_SECONDS + 2 * liveness.ASK_SECONDS, {0: BUSY})
    assert [warning[:26] for warning in last.warnings] == ["no answer from rank 1 on h", "waiting for rank 0 on host"]


def test_time_in_which_this_rank_was_stopped_itself_is_no_silence() -> None:
    wait = Wait(0, 2)
    for _ in range(10):
        wait.go_on(liveness.ASK_SECONDS / 2, {})
        wait.now += 10 * SILENT_SECONDS
    assert wait.warnings == []


def test_questions_are_asked_seldom() -> None:
    wait = Wait(0, 2)
    wait.go_on(20 * liveness.ASK_SECONDS, {1: WAITING})
    assert 15 <= wait.num_questions <= 21


def test_ranks_that_wait_for_each_other_do_not_wait_for_ever() -> None:
    wait = Wait(0, 2)
    with pytest.raises(FailedRun, match="for each other"):
        wait.go_on(2 * LATE_SECONDS, {1: WAITING})
    assert wait.warnings == []
