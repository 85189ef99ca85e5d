"""A comparison as text for a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from partrain.analysis.comparison.comparison import Facts
from partrain.analysis.comparison.significance import MAX_SEEDS, p_text
from partrain.analysis.run_table import duration
from partrain.system.terminal_text import num_columns, printable, printable_lines, table

# Follows the best value of a row.
MARK = "*"
_MARKED = re.compile(r"(?<= )(\S+(?: \S+)*)\*")
# So many digits of a digest are printed: enough to see whether two are equal.
_DIGEST_DIGITS = 12


def describe(facts: Facts, *, width: int | None = None, bold: bool = False) -> str:
    """Return the comparison as tables.

    Parameters
    ----------
    facts : as `compare` returns them.
    width : columns of the terminal. A wider table is split into several tables of fewer runs each.
    bold : print the best values in bold.
    """
    labels = [run["label"] for run in facts["runs"]]
    sections = [
        table(("", "run", "status"), [(r["label"], printable(r["name"]), r["status"]) for r in facts["runs"]], 3),
        describe_user_notes(facts),
        _values_section("configuration", facts["configuration"], labels, width),
        _values_section("environment", facts["surroundings"], labels, width),
        [f"results ({MARK} marks the best value)", *_side_by_side(_result_rows(facts), labels, width)],
        ["parameters", *(describe_parameters(labels, entry) for entry in facts["parameters"])]
        if len(labels) > 1
        else [],
        _groups_section(facts, labels),
        [describe_mcnemar(labels, test, facts["level"]) for test in facts["mcnemar"]],
        ["notes", *(f"- {printable(note)}" for note in facts["notes"])] if facts["notes"] else [],
        [f"{run['label']}: {printable(problem)}" for run in facts["runs"] for problem in run["problems"]],
    ]
    text = printable_lines("\n\n".join("\n".join(lines) for lines in sections if lines))
    return _MARKED.sub("\033[1m\\1*\033[0m", text) if bold else text


def format_value(value: object, kind: str = "") -> str:
    """Return a value as text.

    Parameters
    ----------
    value : a value of the configuration, or of a result.
    kind : the kind of the result, see `Result`.
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(str(value).lower() if isinstance(value, bool) else str(value))
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "∞", "-inf": "-∞"}[str(value)]
    match kind:
        case "count":
            return f"{value:,.0f}"
        case "loss":
            return f"{value:.4f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"
        case "accuracy":
            return f"{value:.2%}"
        case "seconds":
            return duration(value)
        case "rate":
            return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
        case "bytes":
            return f"{value / 2**20:,.0f} MiB"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def describe_user_notes(facts: Facts) -> list[str]:
    """Return a line for each note that the user has written about a run."""
    return [
        f"{run['label']}, {printable(note['time'][:10])}: {' '.join(note['text'].split())}"
        for run in facts["runs"]
        for note in run["user_notes"]
    ]


def describe_parameters(labels: Sequence[str], entry: Facts) -> str:
    """Return a sentence that says whether a run's parameters are bit for bit those of the first run."""
    pair = f"{labels[0]} and {labels[entry['run']]}"
    if entry["same_bits"]:
        return f"{pair}: bit for bit the same"
    return f"{pair}: {_describe_digests(entry)}; {_describe_losses(entry)}{_describe_tensors(entry)}"


def _describe_losses(entry: Facts) -> str:
    difference, equal_until = entry["losses_differ_at"], entry["losses_equal_until"]
    if difference:
        first, second = (f"{value:.6g}" for value in difference["values"])
        if first == second:
            first, second = map(str, difference["values"])
        return (
            f"the logs first differ at step {difference['step']:,.0f}: {difference['metric']} is {first} and {second}"
        )
    if equal_until is not None:
        return f"all losses that both logged are equal, up to step {equal_until:,.0f}"
    return "the logs have no step in common"


def _describe_tensors(entry: Facts) -> str:
    found = entry["tensors_differ_at"]
    if found is None:
        return ""
    return (
        f"; of the checkpoints that both have, those of step {found['step']:,} are the first that differ: first tensor "
        f"{printable(found['tensor'])}, {found['num_different']} of {found['num_tensors']} tensors in all"
    )


def _describe_digests(entry: Facts) -> str:
    equal_until, differ_at = entry["digests_equal_until"], entry["digests_differ_at"]
    same = "" if equal_until is None else f"bit for bit the same up to step {equal_until:,.0f}"
    if differ_at is not None:
        return f"{same}, different at step {differ_at:,.0f}" if same else f"different at step {differ_at:,.0f}"
    if entry["same_bits"] is False:
        return f"{same}, different at the end" if same else "different"
    return f"{same}, unknown after it" if same else "unknown, because a digest is missing"


def describe_mcnemar(labels: Sequence[str], test: Facts, level: float) -> str:
    """Return the outcome of a test between two runs as a sentence."""
    first, second = (labels[index] for index in test["runs"])
    return (
        f"{first} and {second} on {test['num_examples']:,} {test['split']} examples: only {first} is right on "
        f"{test['only_first_right']:,}, only {second} on {test['only_second_right']:,}; McNemar's exact test: "
        f"p = {p_text(test['log10_p'])}{_describe_correction(test)}, {describe_significance(test)} at the "
        f"{1 - level:.0%} level"
    )


def _describe_correction(test: Facts) -> str:
    same = test["log10_corrected_p"] == test["log10_p"]
    return "" if same else f", corrected {p_text(test['log10_corrected_p'])}"


def describe_seeds(test: Facts) -> tuple[str, str]:
    """Return how many seeds per group would decide a test between groups, and how many more these are."""
    if test["is_real"]:
        return "-", "-"
    if test["seeds_needed"] is None:
        return f"over {MAX_SEEDS:,}", "-"
    more = list(dict.fromkeys(test["more_seeds"]))
    return f"{test['seeds_needed']:,}", " and ".join(f"{number:,}" for number in more)


def describe_significance(test: Facts) -> str:
    """Return "significant" or "not significant"."""
    return "significant" if test["is_real"] else "not significant"


def group_names(facts: Facts) -> list[str]:
    """Return the name of each group."""
    return [f"group {number}" for number in range(1, len(facts["groups"]) + 1)]


def pair_name(facts: Facts, test: Facts) -> str:
    """Return the difference that a test between groups is about, as "group 2 - group 1"."""
    first, second = (group_names(facts)[index] for index in test["groups"])
    return f"{second} - {first}"


def format_spread(spread: Facts, kind: str) -> str:
    """Return mean ± standard deviation."""
    return f"{format_value(spread['mean'], kind)} ± {format_value(spread['standard_deviation'], kind)}"


def format_difference(test: Facts, kind: str) -> tuple[str, str]:
    """Return the difference between two groups, and its interval; accuracies in percentage points."""
    numbers = (test["difference"], *test["interval"])
    if kind == "accuracy":
        difference, low, high = (f"{100 * value:+.2f}" for value in numbers)
        return f"{difference} points", f"{low} to {high}"
    difference, low, high = _with_same_decimals(numbers)
    unit = " s" if kind == "seconds" else ""
    return difference + unit, f"{low} to {high}"


def _with_same_decimals(numbers: Sequence[float]) -> list[str]:
    """Return numbers with signs, rounded to the same decimal place: the largest has about four digits."""
    largest = max(map(abs, numbers))
    if not 1e-6 <= largest < 1e12:
        return [f"{value:+.4g}" for value in numbers]
    exponent = int(f"{largest:.3e}".partition("e")[2])
    decimals = max(0, 3 - exponent)
    return [f"{value:+,.{decimals}f}" for value in numbers]


def result_kinds(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return title and kind of each result by its key."""
    return {result["key"]: (result["title"], result["kind"]) for result in facts["results"]}


def _values_section(title: str, lines: Sequence[Facts], labels: Sequence[str], width: int | None) -> list[str]:
    if not lines:
        return [f"{title}: no difference"]
    rows = [(printable(line["key"]), *(format_value(value) for value in line["values"])) for line in lines]
    return [title, *_side_by_side(rows, labels, width)]


def _result_rows(facts: Facts) -> list[tuple[str, ...]]:
    rows = []
    for result in facts["results"]:
        cells = [
            format_value(value, result["kind"]) + (MARK if index in result["best"] else " ")
            for index, value in enumerate(result["values"])
        ]
        rows.append((result["title"], *cells))
    digests = [run["parameters_sha256"] or "-" for run in facts["runs"]]
    rows.append(("parameters_sha256", *(f"{printable(digest[:_DIGEST_DIGITS])} " for digest in digests)))
    return rows


def _side_by_side(rows: Sequence[tuple[str, ...]], labels: Sequence[str], width: int | None) -> list[str]:
    """Return the rows as one table with a column per run, or as several tables that fit the width."""
    for num_runs in range(len(labels), 0, -1):
        tables = [
            table(
                ("", *(f"{label} " for label in labels[first : first + num_runs])),
                [(row[0], *row[1 + first : 1 + first + num_runs]) for row in rows],
            )
            for first in range(0, len(labels), num_runs)
        ]
        if width is None or num_runs == 1 or max(num_columns(line) for lines in tables for line in lines) <= width:
            break
    return [line for number, lines in enumerate(tables) for line in ([""] if number else []) + lines]


def _groups_section(facts: Facts, labels: Sequence[str]) -> list[str]:
    groups, names, kinds = facts["groups"], group_names(facts), result_kinds(facts)
    if not groups:
        return []
    lines = ["runs that differ only in the seed: mean ± standard deviation"]
    lines += [
        f"{name}: {', '.join(labels[index] for index in group['counted'])} (n = {group['n']})"
        for name, group in zip(names, groups, strict=True)
    ]
    keys = [key for key in kinds if any(key in group["measures"] for group in groups)]
    rows = [
        (kinds[key][0], *(_spread_cell(group["measures"].get(key), kinds[key][1], group["n"]) for group in groups))
        for key in keys
    ]
    lines += ["", *table(("", *names), rows)]
    if facts["welch"]:
        lines += ["", f"differences between groups, with Welch's {facts['level']:.0%} confidence interval, corrected p"]
        lines += table(("", "", "difference", "interval", "p", ""), _welch_rows(facts), (0, 1, 5))
        undecided = [row for row, test in zip(_seeds_rows(facts), facts["welch"], strict=True) if not test["is_real"]]
        if undecided:
            lines += ["", "seeds per group that would decide a difference of this size, and how many more these are"]
            lines += table(("", "", "seeds", "more"), undecided, 2)
    return lines


def _welch_rows(facts: Facts) -> list[tuple[str, ...]]:
    kinds = result_kinds(facts)
    rows: list[tuple[str, ...]] = []
    for test in facts["welch"]:
        title, kind = kinds[test["measure"]]
        p = p_text(test["log10_corrected_p"])
        rows.append((pair_name(facts, test), title, *format_difference(test, kind), p, describe_significance(test)))
    return rows


def _seeds_rows(facts: Facts) -> list[tuple[str, ...]]:
    kinds = result_kinds(facts)
    return [(pair_name(facts, test), kinds[test["measure"]][0], *describe_seeds(test)) for test in facts["welch"]]


def _spread_cell(spread: Any, kind: str, n: int) -> str:
    if spread is None:
        return "-"
    return format_spread(spread, kind) + (f" (n = {spread['n']})" if spread["n"] != n else "")
