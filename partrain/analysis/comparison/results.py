"""The results that a comparison lists, one row each, and how each is read from a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from partrain.analysis.logged_run import LoggedRun, Row, finite, nested, number
from partrain.analysis.privacy_record import usable_privacy

# Validation accuracies for which the comparison lists the time, examples and steps needed.
TARGETS = (0.97, 0.98, 0.985, 0.99)


@dataclass(frozen=True)
class Result:
    """One row of the results.

    Attributes
    ----------
    key : the result's name in JSON.
    title : the result's name for people.
    kind : count, loss, accuracy, seconds, rate or bytes; selects how values are formatted.
    better : "low" or "high"; None if no value is better than another.
    value : reads it from a run; None if the run does not have it.
    """

    key: str
    title: str
    kind: str
    better: str | None
    value: Callable[[LoggedRun], float | None]


def first_row_that_reaches(run: LoggedRun, target: float) -> Row | None:
    """Return the first evaluation whose validation accuracy is at least `target`."""
    return next((row for row in run.evaluation_rows if row["validation/accuracy"] >= target), None)


def _from_summary(*keys: str) -> Callable[[LoggedRun], float | None]:
    return lambda run: number(nested(run.summary, *keys))


def _from_privacy(key: str) -> Callable[[LoggedRun], float | None]:
    """Read from the summary's record of privacy; seeded noise is not secret and so protects nothing."""

    def read(run: LoggedRun) -> float | None:
        privacy = usable_privacy(run.summary.get("privacy"))
        return number(privacy[key]) if privacy and privacy["secret_noise"] else None

    return read


def _total(key: str, metric: str) -> Callable[[LoggedRun], float | None]:
    return lambda run: run.total(key, metric)


def _last(metric: str) -> Callable[[LoggedRun], float | None]:
    return lambda run: run.last(metric)


def _best(metric: str, *, highest: bool) -> Callable[[LoggedRun], float | None]:
    def read(run: LoggedRun) -> float | None:
        best = run.best(metric, highest=highest)
        return best[1] if best else None

    return read


def _best_step(run: LoggedRun) -> float | None:
    best = run.best("validation/accuracy", highest=True)
    return best[0] if best else None


def _at_target(target: float, field: str) -> Callable[[LoggedRun], float | None]:
    def read(run: LoggedRun) -> float | None:
        row = first_row_that_reaches(run, target)
        return finite(row.get(field)) if row else None

    return read


def _evaluation_interval(run: LoggedRun) -> float | None:
    steps = [0, *(row["step"] for row in run.evaluation_rows)]
    return median(after - before for before, after in itertools.pairwise(steps)) if steps[1:] else None


def _curve_results(split: str) -> list[Result]:
    return [
        result
        for metric, better in (("loss", "low"), ("accuracy", "high"))
        for result in (
            Result(f"final_{split}_{metric}", f"final {split} {metric}", metric, better, _last(f"{split}/{metric}")),
            Result(
                f"best_{split}_{metric}",
                f"best {split} {metric}",
                metric,
                better,
                _best(f"{split}/{metric}", highest=better == "high"),
            ),
        )
    ]


def _target_results(target: float) -> list[Result]:
    return [
        Result(f"{name}_to_{target:.3g}", f"{name} to {100 * target:g}%", kind, "low", _at_target(target, field))
        for name, kind, field in (
            ("seconds", "seconds", "time_s"),
            ("examples", "count", "examples"),
            ("steps", "count", "step"),
        )
    ]


RESULTS: tuple[Result, ...] = (
    Result("steps", "steps", "count", None, _total("steps", "step")),
    Result("epochs", "epochs", "rate", None, _total("epochs", "epoch")),
    Result("examples", "examples", "count", None, _total("examples", "examples")),
    Result("test_accuracy", "test accuracy", "accuracy", "high", _from_summary("test", "accuracy")),
    Result("test_loss", "test loss", "loss", "low", _from_summary("test", "loss")),
    *_curve_results("validation"),
    Result("best_step", "step of best accuracy", "count", None, _best_step),
    *_curve_results("train"),
    *(result for target in TARGETS for result in _target_results(target)),
    Result("steps_between_evaluations", "steps per evaluation", "count", None, _evaluation_interval),
    Result("epsilon", "epsilon", "loss", "low", _from_privacy("epsilon")),
    Result("delta", "delta", "loss", "low", _from_privacy("delta")),
    Result("total_seconds", "total time", "seconds", "low", _total("total_seconds", "time_s")),
    Result("train_seconds", "training time", "seconds", "low", _from_summary("train_seconds")),
    Result("startup_seconds", "start-up time", "seconds", None, _from_summary("startup_seconds")),
    Result("evaluation_seconds", "evaluation time", "seconds", None, _from_summary("evaluation_seconds")),
    Result("examples_per_second", "examples/s", "rate", "high", _total("examples_per_second", "examples_per_s")),
    Result("peak_memory_bytes", "peak memory", "bytes", "low", _from_summary("peak_memory_bytes")),
    Result("num_parameters", "parameters", "count", None, lambda run: run.num_parameters),
)
