from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.kernels.compiler.loading import load
from partrain.kernels.update_rules import Rule
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameters import Parameter, ParameterLayout
from partrain.parallel.update.span_threads import SpanThreads, useful_span_threads
from tests.optimizers import optimizer_of

MUON = Optimizer(name="muon", lr=0.02, adam_lr=0.003, weight_decay=0.1)


def layout(*shapes: tuple[int, ...]) -> ParameterLayout:
    return ParameterLayout(tuple(Parameter(f"dense{i}.weight", shape, 0.0) for i, shape in enumerate(shapes, start=1)))


def optimizer(parameters: ParameterLayout, options: Optimizer = MUON) -> ParameterOptimizer:
    start = np.random.default_rng(0).standard_normal(parameters.size).astype(np.float32)
    return optimizer_of(start, options, parameters=parameters, last_layer=f"dense{len(list(parameters))}")


@pytest.fixture(scope="module", autouse=True)
def _loaded_kernels() -> None:
    load(ParameterOptimizer.kernels(frozenset(Rule), "fast"), "float32")


def test_any_number_of_threads_makes_the_bits_of_one():
    parameters = layout((40, 30), (7, 64), (64, 7), (5,), (50, 50), (10, 20))
    gradients = np.random.default_rng(1).standard_normal((20, parameters.size)).astype(np.float32)
    results = set()
    for number in (1, 2, 3, 8):
        made = optimizer(parameters)
        threads = SpanThreads(made, made.groups.spans, number)
        for step, gradient in enumerate(gradients, start=1):
            threads.update(gradient, 8, step)
        threads.close()
        results.add(made.parameters.tobytes() + made.first_moment.tobytes() + made.second_moment.tobytes())
    assert len(results) == 1


def test_other_spans_stay_as_they_are():
    made = optimizer(layout((6, 5), (4, 6), (3, 4)))
    before = made.parameters.copy()
    threads = SpanThreads(made, made.groups.spans[1:2], 2)
    threads.update(np.ones_like(before), 8, 1)
    threads.close()
    first, last, _ = made.groups.spans[1]
    assert np.flatnonzero(made.parameters != before).tolist() == list(range(first, last))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_error_in_any_thread_is_raised_and_the_next_update_works(number, monkeypatch):
    made = optimizer(layout((6, 5), (4, 6), (3, 4)))
    threads = SpanThreads(made, made.groups.spans, number)
    gradient = np.ones_like(made.parameters)
    with monkeypatch.context() as patch:
        patch.setattr(made, "update_span", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            threads.update(gradient, 8, 1)
    before = made.parameters.copy()
    threads.update(gradient, 8, 1)
    threads.close()
    assert (made.parameters != before).all()


@pytest.mark.parametrize(
    ("shapes", "options", "expected"),
    [
        (((96, 864), (96, 432), (48, 432), (10, 96)), MUON, 2),  # the largest takes half of the time
        (((256, 512), (256, 512), (256, 512), (256, 512), (10, 256)), MUON, 4),
        (((800, 800), (10, 800)), MUON, 1),  # one matrix: the last layer is Adam's
        (((16, 25), (16, 150), (10, 96)), MUON, 1),  # too small to wake a thread
        (((256, 512), (256, 512), (10, 256)), Optimizer(), 1),
    ],
)
def test_threads_are_as_many_as_share_large_matrices(shapes, options, expected):
    made = optimizer(layout(*shapes), options)
    assert useful_span_threads(made.groups, made.groups.spans, 16) == expected
    assert useful_span_threads(made.groups, made.groups.spans, 1) == 1
