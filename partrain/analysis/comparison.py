"""Logged runs side by side: what differs, what came of it, and whether the difference is real.

The facts are plain values, ready for JSON; `comparison_text` and `report` show them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from partrain.analysis.logged_run import SPLITS, LoggedRun, Row, finite, flatten, number, part
from partrain.analysis.privacy_text import usable_privacy
from partrain.analysis.significance import LEVEL, mcnemar_exact, welch_interval
from partrain.config.schema import RUNTIME

Facts = dict[str, Any]

TARGETS = (0.97, 0.98, 0.985, 0.99)
# Fields of run.json that are no configuration, and yet may explain a difference.
SURROUNDINGS = ("data", "workers", "host", "processor", "versions", "git_commit")
# Of no consequence for what is learnt.
NO_CONSEQUENCE = ("format", "name", *RUNTIME)
LOSSES = ("train/loss", "validation/loss")
# What seeds are averaged over, and groups are held against each other by.
MEASURES = (
    "test_accuracy",
    "test_loss",
    "final_validation_accuracy",
    "best_validation_accuracy",
    "final_validation_loss",
    "total_seconds",
    "examples_per_second",
)


@dataclass(frozen=True)
class Result:
    """A line of the results.

    Attributes
    ----------
    key, title : its name in JSON, and for people.
    kind : count, loss, accuracy, seconds, rate, bytes: how a value is written.
    better : "low", "high", or None where no value is better than another.
    value : reads it from a run.
    """

    key: str
    title: str
    kind: str
    better: str | None
    value: Callable[[LoggedRun], float | None]


def _of_summary(*keys: str) -> Callable[[LoggedRun], float | None]:
    return lambda run: number(part(run.summary, *keys))


def _private(key: str) -> Callable[[LoggedRun], float | None]:
    """Read from what the summary says of privacy; of noise that is no secret nothing is private."""

    def read(run: LoggedRun) -> float | None:
        privacy = usable_privacy(run.summary.get("privacy"))
        return number(privacy[key]) if privacy and privacy["secret_noise"] else None

    return read


def _total(key: str, metric: str) -> Callable[[LoggedRun], float | None]:
    return lambda run: run.total(key, metric)


def _last(metric: str) -> Callable[[LoggedRun], float | None]:
    return lambda run: run.last(metric)


def _best(metric: str, highest: bool, place: int = 1) -> Callable[[LoggedRun], float | None]:
    def read(run: LoggedRun) -> float | None:
        found = run.best(metric, highest=highest)
        return found[place] if found else None

    return read


def _until(target: float, field: str) -> Callable[[LoggedRun], float | None]:
    def read(run: LoggedRun) -> float | None:
        row = first_row_that_reaches(run, target)
        return finite(row.get(field)) if row else None

    return read


def first_row_that_reaches(run: LoggedRun, target: float) -> Row | None:
    """Return the first evaluation whose validation accuracy is at least `target`."""
    return next((row for row in run.evaluation_rows if row["validation/accuracy"] >= target), None)


def _evaluation_interval(run: LoggedRun) -> float | None:
    steps = [0, *(row["step"] for row in run.evaluation_rows)]
    return median(after - before for before, after in itertools.pairwise(steps)) if steps[1:] else None


def _curve_results(split: str) -> list[Result]:
    return [
        Result(
            f"{which}_{split}_{metric}",
            f"{which} {split} {metric}",
            metric,
            better,
            _last(f"{split}/{metric}") if which == "final" else _best(f"{split}/{metric}", better == "high"),
        )
        for metric, better in (("loss", "low"), ("accuracy", "high"))
        for which in ("final", "best")
    ]


def _target_results(target: float) -> list[Result]:
    return [
        Result(f"{name}_to_{target:.3g}", f"{name} to {100 * target:g} %", kind, "low", _until(target, field))
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
    Result("test_accuracy", "test accuracy", "accuracy", "high", _of_summary("test", "accuracy")),
    Result("test_loss", "test loss", "loss", "low", _of_summary("test", "loss")),
    *_curve_results("validation"),
    Result("best_step", "step of the best accuracy", "count", None, _best("validation/accuracy", True, place=0)),
    *_curve_results("train"),
    *(result for target in TARGETS for result in _target_results(target)),
    Result("steps_between_evaluations", "steps between evaluations", "count", None, _evaluation_interval),
    Result("epsilon", "epsilon", "loss", "low", _private("epsilon")),
    Result("delta", "delta, of epsilon", "loss", "low", _private("delta")),
    Result("total_seconds", "time", "seconds", "low", _total("total_seconds", "time_s")),
    Result("train_seconds", "of it steps", "seconds", "low", _of_summary("train_seconds")),
    Result("startup_seconds", "of it start-up", "seconds", None, _of_summary("startup_seconds")),
    Result("evaluation_seconds", "of it evaluations", "seconds", None, _of_summary("evaluation_seconds")),
    Result("examples_per_second", "examples/s", "rate", "high", _total("examples_per_second", "examples_per_s")),
    Result("peak_memory_bytes", "memory", "bytes", "low", _of_summary("peak_memory_bytes")),
    Result("num_parameters", "parameters", "count", None, lambda run: run.num_parameters),
)


def compare(runs: Sequence[LoggedRun], *, everything: bool = False) -> Facts:
    """Return the facts of a comparison.

    Parameters
    ----------
    runs : two or more. The first is the one that others are held against.
    everything : also what all have in common.

    Returns
    -------
    level : of the intervals and tests.
    runs : label, name, path, status, whether finished, seed, digest of the parameters, problems.
    configuration, surroundings : a key and a value for each run; what differs, or everything.
    results : key, title, kind, better, a value for each run, and the places of the best values.
    parameters : for each run but the first, whether it has the bits of the first, and where the losses part.
    groups : runs that differ in the seed alone: their places, which of them count, mean and deviation of each measure.
    welch, mcnemar : the tests. notes : what a reader should know.
    """
    labels = [label(place) for place in range(len(runs))]
    results = [_result(result, runs) for result in RESULTS]
    values = {result["key"]: result["values"] for result in results}
    groups = _groups(runs, values)
    welch, notes_on_welch = _welch(groups)
    grouped = {place for group in groups for place in group["runs"]} if len(runs) > 2 else set()
    mcnemar = _mcnemar(runs, [place for place in range(len(runs)) if place not in grouped])
    facts = {
        "level": LEVEL,
        "configuration": _values_by_key([run.config for run in runs], everything),
        "surroundings": _values_by_key([_surroundings(run) for run in runs], everything),
        "results": [result for result in results if any(value is not None for value in result["values"])],
        "parameters": [_parameters(runs[0], run) | {"run": place} for place, run in enumerate(runs) if place],
        "groups": groups,
        "welch": welch,
        "mcnemar": mcnemar,
        "notes": [*_notes(runs, labels, values), *_notes_on_groups(runs, labels, groups), *notes_on_welch],
    }
    # Last, when everything was read that can be damaged.
    return {"runs": [_run(run, label) for run, label in zip(runs, labels, strict=True)]} | facts


def label(place: int) -> str:
    """Return a short name for the run at a place, counted from 0: A … Z, AA, AB …"""
    return (label(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def _run(run: LoggedRun, label: str) -> Facts:
    return {
        "label": label,
        "name": run.name,
        "path": str(run.directory.path),
        "status": run.status,
        "finished": run.finished,
        "seed": run.config.get("seed"),
        "parameters_sha256": _digest(run),
        "problems": list(dict.fromkeys(run.notes)),
    }


def _digest(run: LoggedRun) -> str | None:
    digest = run.summary.get("parameters_sha256")
    return digest if isinstance(digest, str) else None


def _surroundings(run: LoggedRun) -> dict[str, Any]:
    ranks = {} if run.num_ranks is None else {"ranks": run.num_ranks}
    found = flatten({key: run.record[key] for key in SURROUNDINGS if key in run.record} | ranks)
    return {key: value for key, value in found.items() if key != "processor.features"}


def _values_by_key(of_runs: Sequence[dict[str, Any]], everything: bool) -> list[Facts]:
    keys = list(dict.fromkeys(key for values in of_runs for key in values))
    lines = [{"key": key, "values": [values.get(key) for values in of_runs]} for key in keys]
    return [line for line in lines if everything or len(set(map(repr, line["values"]))) > 1]


def _result(result: Result, runs: Sequence[LoggedRun]) -> Facts:
    values = [result.value(run) for run in runs]
    best: list[int] = []
    # An unfinished run has used less time because it is unfinished.
    candidates = [v for v, run in zip(values, runs, strict=True) if run.finished and v is not None and math.isfinite(v)]
    if result.better and len(set(candidates)) > 1:
        winner = max(candidates) if result.better == "high" else min(candidates)
        best = [place for place, value in enumerate(values) if value == winner and runs[place].finished]
    return {
        "key": result.key,
        "title": result.title,
        "kind": result.kind,
        "better": result.better,
        "values": values,
        "best": best,
    }


def _parameters(first: LoggedRun, second: LoggedRun) -> Facts:
    digests = _digest(first), _digest(second)
    same = digests[0] == digests[1] if None not in digests else None
    found: Facts = {"same_bits": same, "losses_differ_at": None, "losses_equal_until": None}
    if same:
        return found
    partings: list[Facts] = []
    for metric in LOSSES:
        ours, theirs = dict(first.series(metric)), dict(second.series(metric))
        shared = sorted(ours.keys() & theirs.keys())
        parting = next((step for step in shared if not _equal(ours[step], theirs[step])), None)
        if parting is not None:
            partings.append({"step": parting, "metric": metric, "values": [ours[parting], theirs[parting]]})
        elif shared:
            found["losses_equal_until"] = max(shared[-1], found["losses_equal_until"] or 0)
    if partings:
        found["losses_differ_at"] = min(partings, key=lambda parting: parting["step"])
        found["losses_equal_until"] = None
    return found


def _equal(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _groups(runs: Sequence[LoggedRun], values: dict[str, list[float | None]]) -> list[Facts]:
    members: dict[tuple[object, ...], list[int]] = {}
    for place, run in enumerate(runs):
        if run.finished and run.config:
            members.setdefault(_all_but_the_seed(run), []).append(place)
    groups = []
    for places in members.values():
        # The same seed again is the same run again, and no further evidence.
        counted = list({repr(runs[place].config.get("seed")): place for place in reversed(places)}.values())[::-1]
        if len(counted) > 1:
            measures = {key: _spread([values[key][place] for place in counted]) for key in MEASURES}
            known = {key: spread for key, spread in measures.items() if spread}
            groups.append({"runs": places, "counted": sorted(counted), "n": len(counted), "measures": known})
    return groups


def _all_but_the_seed(run: LoggedRun) -> tuple[object, ...]:
    identity = [
        (key, repr(value))
        for key, value in sorted(run.config.items())
        if key != "seed" and not any(key == name or key.startswith(f"{name}.") for name in NO_CONSEQUENCE)
    ]
    return (*identity, repr(part(run.record, "data", "digest")))


def _spread(values: Sequence[float | None]) -> Facts | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return None
    return {"mean": fmean(known), "standard_deviation": stdev(known), "n": len(known), "values": known}


def _welch(groups: Sequence[Facts]) -> tuple[list[Facts], list[str]]:
    """Hold each group against the first."""
    tests: list[Facts] = []
    for place, group in enumerate(groups[1:], 1):
        for key in MEASURES:
            spreads = [each["measures"].get(key) for each in (groups[0], group)]
            if None in spreads:
                continue
            first, second = (spread["values"] for spread in spreads)
            try:
                interval = welch_interval(first, second)
            except ModuleNotFoundError:
                return [], ["intervals of the differences between groups need scipy: pip install 'partrain[report]'"]
            if interval is not None:
                low, high, freedom = interval
                tests.append(
                    {
                        "groups": [0, place],
                        "measure": key,
                        "difference": fmean(second) - fmean(first),
                        "interval": [low, high],
                        "degrees_of_freedom": freedom,
                        "is_real": not low <= 0 <= high,
                    }
                )
    return tests, []


def _mcnemar(runs: Sequence[LoggedRun], singles: Sequence[int]) -> list[Facts]:
    """Hold each run against the first, on the first split that both were evaluated on."""
    tests = []
    for place in singles[1:]:
        first, second = runs[singles[0]].evaluations, runs[place].evaluations
        for split in SPLITS:
            if split in first and split in second and _same_examples(first[split], second[split]):
                one, other = first[split], second[split]
                triples = list(zip(one["labels"], one["predictions"], other["predictions"], strict=True))
                only_first = sum(truth == a != b for truth, a, b in triples)
                only_second = sum(truth == b != a for truth, a, b in triples)
                p = mcnemar_exact(only_first, only_second)
                tests.append(
                    {
                        "runs": [singles[0], place],
                        "split": split,
                        "num_examples": len(triples),
                        "only_first_right": only_first,
                        "only_second_right": only_second,
                        "p": p,
                        "is_real": p < 1 - LEVEL,
                    }
                )
                break
    return tests


def _same_examples(first: Facts, second: Facts) -> bool:
    return bool(
        first.get("data_digest") == second.get("data_digest")
        and first.get("labels")
        and first["labels"] == second.get("labels")
    )


def _notes(runs: Sequence[LoggedRun], labels: Sequence[str], values: dict[str, list[float | None]]) -> list[str]:
    notes = []
    unfinished = [f"{label} ({run.status})" for run, label in zip(runs, labels, strict=True) if not run.finished]
    if unfinished:
        notes.append(f"not finished: {', '.join(unfinished)}; no value of theirs counts as best, and no group has them")
    digests = {repr(part(run.record, "data", "digest")) for run in runs}
    if len(digests) > 1:
        notes.append("the runs were trained on different data: losses and accuracies are of different examples")
    if len({step for step in values["steps"] if step is not None}) > 1:
        notes.append("the runs have different lengths: final values and times are of different numbers of steps")
    machines = {repr((run.record.get("host"), part(run.record, "processor", "name"))) for run in runs}
    if len(machines) > 1:
        notes.append("the runs ran on different machines: times and examples/s are not of the networks alone")
    if any(value is not None for value in values[f"steps_to_{TARGETS[0]:.3g}"]):
        notes.append("times to an accuracy are as fine as the steps between evaluations, and hold start-up")
    return notes


def _notes_on_groups(runs: Sequence[LoggedRun], labels: Sequence[str], groups: Sequence[Facts]) -> list[str]:
    return [
        f"{labels[place]} has the seed {runs[place].config.get('seed')} of another run of its group and is not counted"
        for group in groups
        for place in group["runs"]
        if place not in group["counted"]
    ]
