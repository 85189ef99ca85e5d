from __future__ import annotations

import itertools
import time

from partrain.parallel.spinning import spin


def test_what_is_answered_ends_it() -> None:
    answers = iter([[], [], ["here"]])
    assert spin(lambda: next(answers), 600.0) == ["here"]


def test_without_an_answer_it_ends_with_its_moment() -> None:
    questions = itertools.count()
    begin = time.monotonic()
    assert spin(lambda: [] if next(questions) >= 0 else ["never"], 0.01) == []
    assert time.monotonic() - begin >= 0.01
    assert next(questions) > 1
