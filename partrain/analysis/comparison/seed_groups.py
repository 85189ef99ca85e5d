"""Groups of runs that differ only in the seed, and Welch's test between the groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from partrain.analysis.comparison.significance import welch_test
from partrain.analysis.logged_run import LoggedRun, nested
from partrain.config.identity import LOCATION_KEY, RUNTIME_KEYS

# The results that are averaged over seeds and compared between groups.
MEASURES = (
    "test_accuracy",
    "test_loss",
    "final_validation_accuracy",
    "best_validation_accuracy",
    "final_validation_loss",
    "total_seconds",
    "examples_per_second",
)
# Configuration keys that do not influence what a network learns.
WITHOUT_EFFECT = ("format", "name", LOCATION_KEY, *RUNTIME_KEYS)


def seed_groups(runs: Sequence[LoggedRun], values: dict[str, list[float | None]]) -> list[dict[str, Any]]:
    """Return the groups of finished runs that differ only in the seed.

    Parameters
    ----------
    runs : the runs that are compared.
    values : the value of each run, for each result by key.

    Returns
    -------
    Of each group of two seeds or more: `runs`, the indices of its runs; `counted`, those that count, one per seed;
    `n`, how many these are; `measures`, mean, standard deviation, n and values of each measure.
    """
    members: dict[tuple[object, ...], list[int]] = {}
    for index, run in enumerate(runs):
        if run.finished and run.config:
            members.setdefault(_identity_without_seed(run), []).append(index)
    groups = []
    for indices in members.values():
        # A second run with the same seed repeats the first; it is no further evidence.
        counted = sorted({repr(runs[index].config.get("seed")): index for index in reversed(indices)}.values())
        if len(counted) > 1:
            spreads = {key: _spread([values[key][index] for index in counted]) for key in MEASURES}
            measures = {key: spread for key, spread in spreads.items() if spread}
            groups.append({"runs": indices, "counted": counted, "n": len(counted), "measures": measures})
    return groups


def welch_tests(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each group with the first by Welch's test.

    Returns
    -------
    For each group but the first and each measure that both have: `groups`, the two indices; `measure`; `difference`,
    its `interval` and `degrees_of_freedom`; `log10_p`, the logarithm of its p value.

    Raises
    ------
    ModuleNotFoundError
        scipy is not installed.
    """
    tests: list[dict[str, Any]] = []
    for index, group in enumerate(groups[1:], 1):
        for key in MEASURES:
            if key not in groups[0]["measures"] or key not in group["measures"]:
                continue
            first, second = (each["measures"][key]["values"] for each in (groups[0], group))
            outcome = welch_test(first, second)
            if outcome is not None:
                tests.append(
                    {
                        "groups": [0, index],
                        "measure": key,
                        "difference": outcome.difference,
                        "interval": list(outcome.interval),
                        "degrees_of_freedom": outcome.degrees_of_freedom,
                        "log10_p": outcome.log10_p,
                    }
                )
    return tests


def _identity_without_seed(run: LoggedRun) -> tuple[object, ...]:
    identity = [
        (key, repr(value))
        for key, value in sorted(run.config.items())
        if key != "seed" and not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)
    ]
    return (*identity, repr(nested(run.record, "data", "digest")))


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return None
    return {"mean": fmean(known), "standard_deviation": stdev(known), "n": len(known), "values": known}
