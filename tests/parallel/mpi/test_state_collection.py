from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray

from partrain.parallel.mpi.state_collection import StateCollection


class Request:
    def __init__(self, *, is_complete: bool) -> None:
        self.is_complete = is_complete

    def Test(self) -> bool:
        return self.is_complete


class Asking:
    """Rank 0, and what it has asked rank 1."""

    def __init__(self) -> None:
        self.questions: list[bytes] = []
        self.states = StateCollection(lambda content, rank: self.questions.append(content), lambda content: None)

    def receive(self, answer: bytes, *, is_complete: bool = True) -> Request:
        request = Request(is_complete=is_complete)
        self.states.receive(1, request, np.frombuffer(answer, np.uint8))
        return request


class Answering:
    """Rank 1, which has committed `step`."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.answers: list[bytes] = []
        self.states = StateCollection(lambda content, rank: None, self.answers.append)
        self.states.offered = lambda step: f"state {step}".encode() if step == self.step else None


def test_question_about_the_step_that_a_rank_waits_for_is_answered_after_it() -> None:
    asking, answering = Asking(), Answering(step=6)
    asking.states.begin(7, [1])
    answering.states.receive_question(asking.questions[0])
    answering.states.answer()
    assert answering.answers == []
    answering.step = 7
    answering.states.answer()
    answering.states.answer()
    assert len(answering.answers) == 1
    asking.receive(answering.answers[0])
    assert asking.states.received() == {1: b"state 7"}


def test_late_answer_to_an_earlier_question_does_not_count() -> None:
    asking, answering = Asking(), Answering(step=7)
    for step in (7, 8):
        asking.states.begin(step, [1])
        answering.step = step
        answering.states.receive_question(asking.questions[-1])
        answering.states.answer()
    earlier = asking.receive(answering.answers[0], is_complete=False)
    asking.receive(answering.answers[1])
    assert asking.states.received() == {1: b"state 8"}
    earlier.is_complete = True
    assert asking.states.received() == {1: b"state 8"}


def test_memory_into_which_mpi_still_writes_is_not_given_up() -> None:
    asking = Asking()
    asking.states.begin(7, [1])
    buffer: NDArray[np.uint8] = np.zeros(64, np.uint8)
    alive = weakref.ref(buffer)
    asking.states.receive(1, Request(is_complete=False), buffer)
    del buffer
    asking.states.received()
    asking.states.begin(8, [1])
    assert alive() is not None
