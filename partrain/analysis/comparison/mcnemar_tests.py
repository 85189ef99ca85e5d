"""McNemar's test between single runs that were evaluated on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from partrain.analysis.comparison.significance import mcnemar_log10_p
from partrain.analysis.logged_run import LoggedRun
from partrain.data.split_name import SplitName


def mcnemar_tests(runs: Sequence[LoggedRun], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Compare each of these runs with the first of them, on the first split for which both have an evaluation.

    Parameters
    ----------
    runs : all runs.
    indices : those that are compared. Runs that differ only in the seed do not belong here: the test would find
        differences between the networks, which are due to chance.

    Returns
    -------
    For each test `runs`, the two indices; `split`; `num_examples`; `only_first_right` and `only_second_right`, the
    numbers of examples that exactly one run classifies correctly; `log10_p`, the logarithm of the p value.
    """
    tests = []
    for index in indices[1:]:
        first, second = runs[indices[0]].evaluations, runs[index].evaluations
        split = next(
            (s for s in reversed(SplitName) if s in first and s in second and _same_examples(first[s], second[s])), None
        )
        if split is not None:
            tests.append({"runs": [indices[0], index], "split": split} | _mcnemar_test(first[split], second[split]))
    return tests


def _mcnemar_test(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    triples = list(zip(first["labels"], first["predictions"], second["predictions"], strict=True))
    only_first = sum(truth == a != b for truth, a, b in triples)
    only_second = sum(truth == b != a for truth, a, b in triples)
    return {
        "num_examples": len(triples),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "log10_p": mcnemar_log10_p(only_first, only_second),
    }


def _same_examples(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return bool(
        first.get("data_digest") == second.get("data_digest")
        and first.get("labels")
        and first["labels"] == second.get("labels")
    )
