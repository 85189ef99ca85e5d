"""Decides which differences are significant: all tests of a comparison are one family, corrected by Holm's method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from partrain.analysis.comparison.significance import LEVEL, POWER, holm, p_as_float, seeds_needed


def decide(tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests, each with its p value corrected for all of them, and with whether it is significant.

    Parameters
    ----------
    tests : all tests of a comparison; each has `log10_p`.

    Returns
    -------
    Of each test also `p`, `corrected_p` and `log10_corrected_p`; `is_real`, whether the corrected p value is below
    1 - LEVEL. The smallest positive float stands for smaller p values; the logarithms are exact.
    """
    corrected = holm([test["log10_p"] for test in tests])
    return [
        test
        | {"p": p_as_float(test["log10_p"]), "corrected_p": p_as_float(log10_p), "log10_corrected_p": log10_p}
        | {"is_real": p_as_float(log10_p) < 1 - LEVEL}
        for test, log10_p in zip(tests, corrected, strict=True)
    ]


def add_seeds_needed(welch: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]], num_tests: int) -> None:
    """Add to each Welch test how many seeds would decide it.

    Parameters
    ----------
    welch, groups : as `welch_tests` and `seed_groups` return them; `seeds_needed` is added to each test: the number per
        group with which a difference of the observed size becomes significant with probability POWER, whatever the
        other tests give; and `more_seeds`, how many each of the two groups lacks. Both are None if the difference is
        significant already, or if more than MAX_SEEDS are needed.
    num_tests : the number of tests in the comparison.
    """
    for test in welch:
        spreads = [groups[index]["measures"][test["measure"]] for index in test["groups"]]
        needed = None
        if not test["is_real"]:
            # Holm's correction asks most of the smallest p value: to be below the level divided by the number of tests.
            needed = seeds_needed(spreads[0]["values"], spreads[1]["values"], (1 - LEVEL) / num_tests)
        more = None if needed is None else [max(0, needed - spread["n"]) for spread in spreads]
        test |= {"seeds_needed": needed, "more_seeds": more}


def notes_on_tests(welch: Sequence[dict[str, Any]], mcnemar: Sequence[dict[str, Any]]) -> list[str]:
    """Return how the tests were made, and how to read them."""
    notes = []
    num_tests = len(welch) + len(mcnemar)
    if num_tests > 1:
        notes.append(
            f"p values are corrected for {num_tests} comparisons by Holm's method: if no difference is real, the "
            f"probability that any is called significant is at most {1 - LEVEL:.0%}; intervals are of one difference "
            "each"
        )
    if any(not test["is_real"] for test in welch):
        notes.append(
            "seeds that would decide: with so many per group, Welch's two-sided test, corrected in the same way, shows "
            f"a difference of the observed size with a probability (power) of {POWER:.0%}, by the noncentral t "
            "distribution (Jan and Shieh, 2011); the observed size is itself uncertain"
        )
    if mcnemar:
        notes.append(
            "McNemar's test compares two trained networks, not their settings: another seed may change the outcome. To "
            "compare settings, train each with several seeds"
        )
    return notes
