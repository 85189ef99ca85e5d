"""Compares logged runs: differences between configurations, results, parameters, and tests of significance.

The outcome is a dictionary of plain values, ready for JSON; `comparison.text` and `html_report` present it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from partrain.analysis.comparison.decisions import add_seeds_needed, decide, notes_on_tests
from partrain.analysis.comparison.mcnemar_tests import mcnemar_tests
from partrain.analysis.comparison.results import RESULTS, TARGETS, Result
from partrain.analysis.comparison.seed_groups import seed_groups, welch_tests
from partrain.analysis.comparison.significance import LEVEL
from partrain.analysis.comparison.tensors import first_different_tensor
from partrain.analysis.logged_run import LoggedRun, flatten, nested
from partrain.kernels.bits_version import BITS_FIELD

Facts = dict[str, Any]

# Entries of run.json outside of the configuration that may explain a difference.
SURROUNDINGS = ("data", "workers", "host", "processor", "versions", "git_commit")
LOSSES = ("train/loss", "validation/loss")


def compare(runs: Sequence[LoggedRun], *, everything: bool = False) -> Facts:
    """Compare runs.

    Parameters
    ----------
    runs : the others are compared with the first; a single run is described.
    everything : also list what all runs have in common.

    Returns
    -------
    level : confidence level of intervals and tests.
    runs : for each run: label, name, path, status, whether it is finished, seed, digest of its parameters, what
        the user has noted, problems.
    configuration, surroundings : keys, each with a value per run; only keys that differ, unless `everything`.
    results : each with key, title, kind, better, a value per run, and the indices of the runs with the best value.
    parameters : for each run but the first, whether its parameters are bit for bit those of the first, and otherwise
        where the logged losses first differ, and the first tensor that does.
    groups, welch, mcnemar : see `seed_groups`, `welch_tests` and `mcnemar_tests`; for the fields of both kinds of
        tests, `decide` and `add_seeds_needed`.
    notes : remarks for reading the results.
    """
    labels = [label(index) for index in range(len(runs))]
    results = [_result(result, runs) for result in RESULTS]
    values = {result["key"]: result["values"] for result in results}
    groups = seed_groups(runs, values)
    notes = [*_notes(runs, labels, values), *_notes_on_groups(runs, labels, groups)]
    in_groups = {index for group in groups for index in group["runs"]}
    mcnemar = mcnemar_tests(runs, [index for index in range(len(runs)) if index not in in_groups])
    try:
        welch = welch_tests(groups)
    except ModuleNotFoundError:
        welch = []
        notes.append("intervals of the differences between groups need scipy: pip install 'partrain[report]'")
    decided = decide([*welch, *mcnemar])
    welch, mcnemar = decided[: len(welch)], decided[len(welch) :]
    add_seeds_needed(welch, groups, len(decided))
    facts = {
        "level": LEVEL,
        "configuration": _values_by_key([run.config for run in runs], everything),
        "surroundings": _values_by_key([_surroundings(run) for run in runs], everything),
        "results": [result for result in results if any(value is not None for value in result["values"])],
        "parameters": [{"run": index} | _parameters(runs[0], run) for index, run in enumerate(runs) if index],
        "groups": groups,
        "welch": welch,
        "mcnemar": mcnemar,
        "notes": notes + notes_on_tests(welch, mcnemar),
    }
    # Last, because reading the runs adds to their problems.
    return {"runs": [_run(run, label) for run, label in zip(runs, labels, strict=True)]} | facts


def label(index: int) -> str:
    """Return a short name for the run at an index: A … Z, AA, AB …"""
    return (label(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def _run(run: LoggedRun, label: str) -> Facts:
    return {
        "label": label,
        "name": run.name,
        "path": str(run.directory.path),
        "status": run.status,
        "finished": run.finished,
        "seed": run.config.get("seed"),
        "parameters_sha256": _parameters_digest(run),
        "user_notes": run.user_notes,
        "problems": list(dict.fromkeys(run.notes)),
    }


def _parameters_digest(run: LoggedRun) -> str | None:
    digest = run.summary.get("parameters_sha256")
    return digest if isinstance(digest, str) else None


def _surroundings(run: LoggedRun) -> dict[str, Any]:
    more = {BITS_FIELD: run.bits_version} | ({} if run.num_ranks is None else {"ranks": run.num_ranks})
    values = flatten({key: run.record[key] for key in SURROUNDINGS if key in run.record} | more)
    return {key: value for key, value in values.items() if key != "processor.features"}


def _values_by_key(values_of_runs: Sequence[dict[str, Any]], everything: bool) -> list[Facts]:
    keys = list(dict.fromkeys(key for values in values_of_runs for key in values))
    lines = [{"key": key, "values": [values.get(key) for values in values_of_runs]} for key in keys]
    return [line for line in lines if everything or len(set(map(repr, line["values"]))) > 1]


def _result(result: Result, runs: Sequence[LoggedRun]) -> Facts:
    values = [result.value(run) for run in runs]
    best: list[int] = []
    # Unfinished runs do not compete: an interrupted run took less time because it was interrupted.
    candidates = [v for v, run in zip(values, runs, strict=True) if run.finished and v is not None and math.isfinite(v)]
    if result.better and len(set(candidates)) > 1:
        winner = max(candidates) if result.better == "high" else min(candidates)
        best = [index for index, value in enumerate(values) if value == winner and runs[index].finished]
    return {
        "key": result.key,
        "title": result.title,
        "kind": result.kind,
        "better": result.better,
        "values": values,
        "best": best,
    }


def _parameters(first: LoggedRun, second: LoggedRun) -> Facts:
    """Compare the parameters of two runs by their digests; if these differ or are missing, compare logged losses."""
    digests = _parameters_digest(first), _parameters_digest(second)
    same = digests[0] == digests[1] if None not in digests else None
    facts: Facts = {"same_bits": same, "losses_differ_at": None, "losses_equal_until": None, "tensors_differ_at": None}
    logged, other_logged = first.parameter_digests, second.parameter_digests
    steps = sorted(logged.keys() & other_logged.keys())
    differs_at = next((step for step in steps if logged[step] != other_logged[step]), None)
    equal = [step for step in steps if differs_at is None or step < differs_at]
    facts |= {"digests_differ_at": differs_at, "digests_equal_until": equal[-1] if equal else None}
    if same:
        return facts
    facts["tensors_differ_at"] = first_different_tensor(first, second)
    differences: list[Facts] = []
    for metric in LOSSES:
        losses, other_losses = dict(first.series(metric)), dict(second.series(metric))
        shared_steps = sorted(losses.keys() & other_losses.keys())
        step = next((step for step in shared_steps if not _equal(losses[step], other_losses[step])), None)
        if step is not None:
            differences.append({"step": step, "metric": metric, "values": [losses[step], other_losses[step]]})
        elif shared_steps:
            facts["losses_equal_until"] = max(shared_steps[-1], facts["losses_equal_until"] or 0)
    if differences:
        facts["losses_differ_at"] = min(differences, key=lambda difference: difference["step"])
        facts["losses_equal_until"] = None
    return facts


def _equal(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _notes(runs: Sequence[LoggedRun], labels: Sequence[str], values: dict[str, list[float | None]]) -> list[str]:
    notes = []
    unfinished = [f"{label} ({run.status})" for run, label in zip(runs, labels, strict=True) if not run.finished]
    if unfinished:
        notes.append(f"not finished: {', '.join(unfinished)}; not considered for best values and groups")
    if len({run.bits_version for run in runs} - {None}) > 1:
        versions = [f"{label} {run.bits_version or '-'}" for run, label in zip(runs, labels, strict=True)]
        notes.append(
            f"the runs have different versions of the bits ({', '.join(versions)}): even with equal configuration and "
            "data, their parameters and losses may differ in the last bits"
        )
    digests = {repr(nested(run.record, "data", "digest")) for run in runs}
    if len(digests) > 1:
        notes.append("the runs were trained on different data: losses and accuracies refer to different examples")
    if len({step for step in values["steps"] if step is not None}) > 1:
        notes.append("the runs have different lengths: final values and times refer to different numbers of steps")
    machines = {repr((run.record.get("host"), nested(run.record, "processor", "name"))) for run in runs}
    if len(machines) > 1:
        notes.append("the runs used different machines: times and examples/s depend on the machine as well")
    if any(value is not None for value in values[f"steps_to_{TARGETS[0]:.3g}"]):
        notes.append(
            "time, examples and steps to an accuracy are measured at evaluations, so they are only as precise as the "
            "steps between evaluations; times include start-up"
        )
    return notes


def _notes_on_groups(runs: Sequence[LoggedRun], labels: Sequence[str], groups: Sequence[Facts]) -> list[str]:
    return [
        f"{labels[index]} has the same seed ({runs[index].config.get('seed')}) as another run of its group and is not "
        "counted"
        for group in groups
        for index in group["runs"]
        if index not in group["counted"]
    ]
