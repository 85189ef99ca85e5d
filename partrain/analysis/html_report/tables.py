"""The tables of the page, in HTML. All texts are escaped here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from partrain.analysis.comparison.comparison import Facts
from partrain.analysis.comparison.significance import p_text
from partrain.analysis.comparison.text import (
    describe_seeds,
    describe_significance,
    format_difference,
    format_spread,
    format_value,
    group_names,
    pair_name,
    result_kinds,
)

# Larger confusion matrices are not readable; so many of the most frequent confusions replace them.
MAX_CLASSES, MAX_CONFUSIONS = 30, 10
# Longer names stand upright above the columns of a confusion matrix.
MAX_LEVEL_NAME = 3


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    value : by which the table is sorted; None if there is none.
    shown : the text.
    best : whether the value is the best of its row.
    """

    value: object
    shown: str
    best: bool = False

    def html(self, attributes: str = "") -> str:
        """Return the cell as HTML; `attributes` are HTML, too."""
        key = "" if self.value is None else escape(str(self.value))
        text = f"<strong>{escape(self.shown)}</strong>" if self.best else escape(self.shown)
        return f'<td{attributes} data-value="{key}">{text}</td>'


def configuration_table(facts: Facts, key: str) -> str:
    """Return the table of `configuration` or `surroundings`: a row for each key, a column for each run."""
    if not facts[key]:
        return "<p>No difference.</p>"
    rows = [(line["key"], [Cell(value, format_value(value)) for value in line["values"]]) for line in facts[key]]
    return _table_of_runs(facts, rows, key)


def results_table(facts: Facts) -> str:
    """Return the table of results: a row for each result, a column for each run."""
    rows = []
    for result in facts["results"]:
        cells = [
            Cell(value, format_value(value, result["kind"]), index in result["best"])
            for index, value in enumerate(result["values"])
        ]
        rows.append((result["title"], cells))
    return _table_of_runs(facts, rows, "results")


def groups_tables(facts: Facts) -> str:
    """Return the tables of groups of runs that differ only in the seed; empty without groups."""
    groups, names, kinds = facts["groups"], group_names(facts), result_kinds(facts)
    if not groups:
        return ""
    heads = []
    for name, group in zip(names, groups, strict=True):
        members = ", ".join(facts["runs"][index]["label"] for index in group["counted"])
        heads.append(f'<th scope="col">{escape(name)}<br>{escape(members)}</th>')
    rows = [("runs", [Cell(group["n"], str(group["n"])) for group in groups])]
    for key in kinds:
        spreads = [group["measures"].get(key) for group in groups]
        if any(spreads):
            cells = [Cell(s["mean"], format_spread(s, kinds[key][1])) if s else Cell(None, "-") for s in spreads]
            rows.append((kinds[key][0], cells))
    content = "<p>Runs that differ only in the seed: mean ± standard deviation.</p>"
    content += _table_by_row(heads, rows, "groups", ["" for _ in groups])
    if facts["welch"]:
        content += (
            f"<p>Differences between groups, with Welch's {facts['level']:.0%} confidence interval; p is corrected.</p>"
        )
        content += _welch_table(facts, kinds)
    return content


def _welch_table(facts: Facts, kinds: Mapping[str, tuple[str, str]]) -> str:
    rows = []
    for test in facts["welch"]:
        title, kind = kinds[test["measure"]]
        difference, interval = format_difference(test, kind)
        verdict, (seeds, more) = describe_significance(test), describe_seeds(test)
        rows.append(
            [
                Cell(test["groups"][1], pair_name(facts, test)),
                Cell(title, title),
                Cell(test["difference"], difference),
                Cell(test["interval"][0], interval),
                Cell(test["log10_corrected_p"], p_text(test["log10_corrected_p"])),
                Cell(verdict, verdict),
                Cell(test["seeds_needed"], seeds),
                Cell(max(test["more_seeds"] or [0]), more),
            ]
        )
    heads = ("groups", "result", "difference", "interval", "p", "significance", "seeds that would decide", "more seeds")
    return table_by_column(heads, rows, "welch")


def recall_table(evaluated: Sequence[tuple[str, Facts]]) -> str:
    """Return the table of recalls: a row for each class, a column for each evaluated run, given by label."""
    names = list(dict.fromkeys(name for _, evaluation in evaluated for name in evaluation["classes"]))
    of_runs = [dict(zip(evaluation["classes"], evaluation["recall"], strict=True)) for _, evaluation in evaluated]
    rows = []
    for name in names:
        shares = [recall.get(name) for recall in of_runs]
        known = [share for share in shares if isinstance(share, float | int)]
        best = max(known) if len(set(known)) > 1 else None
        cells = [Cell(share, format_value(share, "accuracy"), share is not None and share == best) for share in shares]
        rows.append([Cell(name, name), *cells])
    return table_by_column(("class", *(label for label, _ in evaluated)), rows, "recall")


def confusion_matrix(label: str, evaluation: Facts) -> str:
    """Return the confusion matrix of the run with this label."""
    classes, confusion = evaluation["classes"], evaluation["confusion"]
    accuracy = format_value(evaluation.get("accuracy"), "accuracy")
    caption = f"<figcaption><b>{escape(label)}</b> {escape(accuracy)}</figcaption>"
    if confusion is None or len(classes) > MAX_CLASSES:
        return f"<figure>{caption}{_most_frequent_confusions(evaluation)}</figure>"
    head = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in classes)
    rows = ""
    for index, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        total = sum(counts) or 1
        cells = "".join(
            f'<td class="{"right" if k == index else "wrong"}" style="--share:{count / total:.3f}">{count or ""}</td>'
            for k, count in enumerate(counts)
        )
        rows += f'<tr><th scope="row" title="{escape(name)}">{escape(name)}</th>{cells}</tr>'
    upright = " upright" if max(map(len, classes), default=0) > MAX_LEVEL_NAME else ""
    table = f'<table class="matrix{upright}"><tr><td></td>{head}</tr>{rows}</table>'
    return f'<figure>{caption}<div class="scroll">{table}</div></figure>'


def _most_frequent_confusions(evaluation: Facts) -> str:
    """Return what replaces the confusion matrix of many classes: its largest cells, without the diagonal."""
    classes = evaluation["classes"]
    text = f"<p>{len(classes):,} classes are too many for a matrix. The most frequent confusions:</p>"
    pairs = zip(evaluation.get("labels", []), evaluation.get("predictions", []), strict=True)
    known = range(len(classes))
    counts = Counter(pair for pair in pairs if pair[0] != pair[1] and pair[0] in known and pair[1] in known)
    rows = [
        [Cell(classes[label], classes[label]), Cell(classes[other], classes[other]), Cell(count, f"{count:,}")]
        for (label, other), count in counts.most_common(MAX_CONFUSIONS)
    ]
    return text + table_by_column(("true class", "predicted class", "examples"), rows, "confusions")


def _table_of_runs(facts: Facts, rows: Sequence[tuple[str, Sequence[Cell]]], kind: str) -> str:
    """Return a table with a column for each run, sorted by the heads of its rows."""
    heads = []
    for index, run in enumerate(facts["runs"]):
        label, name = escape(run["label"]), escape(run["name"])
        heads.append(
            f'<th scope="col" data-run="{index}" title="{name}"><span class="swatch"></span>{label}'
            f'<bdi class="name">{name}</bdi></th>'
        )
    return _table_by_row(heads, rows, kind, [f' data-run="{index}"' for index in range(len(heads))])


def _table_by_row(
    heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]], kind: str, attributes: Sequence[str]
) -> str:
    """Return a table that is sorted by the heads of its rows; `heads` of columns and `attributes` of cells are HTML."""
    button = ('<button type="button">', "</button>") if len(heads) > 1 else ("", "")
    body = "\n".join(
        f'<tr><th scope="row">{button[0]}{escape(title)}{button[1]}</th>'
        + "".join(cell.html(attribute) for cell, attribute in zip(cells, attributes, strict=True))
        + "</tr>"
        for title, cells in rows
    )
    return _table(f"<td></td>{''.join(heads)}", body, kind)


def table_by_column(heads: Sequence[str], rows: Sequence[Sequence[Cell]], kind: str) -> str:
    """Return a table that is sorted by the heads of its columns."""
    head = "".join(f'<th scope="col"><button type="button">{escape(text)}</button></th>' for text in heads)
    body = "\n".join(f"<tr>{''.join(cell.html() for cell in cells)}</tr>" for cells in rows)
    return _table(head, body, kind)


def _table(head: str, body: str, kind: str) -> str:
    return (
        f'<div class="scroll of-{kind}"><table class="sortable {kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )
