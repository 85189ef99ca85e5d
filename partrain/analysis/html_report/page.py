"""The page: tables as HTML, which need no script, and the curves that a script draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import partrain
from partrain.analysis.comparison import Facts
from partrain.analysis.comparison_text import (
    describe_mcnemar,
    describe_parameters,
    format_difference,
    format_spread,
    format_value,
    group_names,
    result_kinds,
)
from partrain.analysis.html_report.curves import curves, pack, pack_json
from partrain.analysis.logged_run import SPLITS, LoggedRun
from partrain.errors import MissingPackage, ResourceError
from partrain.system.durable_files import write_durably

# A matrix of more classes is nothing to look at.
MOST_CLASSES = 30
# Nothing but what stands in the page: a script that came in by a name could not run, nor ask anybody.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_page(path: Path, runs: Sequence[LoggedRun], facts: Facts) -> None:
    """Write the page of a comparison.

    Parameters
    ----------
    path : the file; what was there is replaced.
    runs : as given to `comparison.compare`.
    facts : what it returned.

    Raises
    ------
    MissingPackage : plotly is not installed.
    ResourceError : the file cannot be written.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise MissingPackage("plotly", "report", "--html") from error
    text = page(runs, facts, get_plotlyjs())
    try:
        # A surrogate stands for a byte of a name that is not UTF-8.
        write_durably(path, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror}. Choose another file for --html.") from error


def page(runs: Sequence[LoggedRun], facts: Facts, plotly: str) -> str:
    """Return the page.

    Parameters
    ----------
    runs, facts : as for `write_page`.
    plotly : the source of plotly.js.
    """
    labels = [run["label"] for run in facts["runs"]]
    names = [{"label": run["label"], "name": run["name"]} for run in facts["runs"]]
    data = [name | curve for name, curve in zip(names, curves(runs), strict=True)]
    body = "\n".join(
        [
            f"<header><h1>{len(runs)} runs compared</h1></header>",
            "<main>",
            _runs(facts),
            _asset("curves.html"),
            _section("Configuration", _values(facts, "configuration", "No difference.")),
            _section("Results", _results(facts)),
            _section("Parameters", _list(describe_parameters(labels, entry) for entry in facts["parameters"])),
            _groups(facts),
            _section(
                "Is the difference real?",
                _list(describe_mcnemar(labels, test, facts["level"]) for test in facts["mcnemar"]),
            ),
            *(_evaluations(runs, labels, split) for split in SPLITS),
            _section("Surroundings", _values(facts, "surroundings", "No difference.")),
            _section("Notes", _list(facts["notes"] + _problems(facts))),
            "</main>",
            f"<footer>partrain {escape(partrain.__version__)}</footer>",
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{len(runs)} runs compared</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
{body}
<script type="text/plain" id="packed-plotly">{pack(plotly.encode())}</script>
<script type="text/plain" id="packed-runs">{pack_json(data)}</script>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("partrain.analysis.html_report").joinpath(name).read_text(encoding="utf-8")


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _problems(facts: Facts) -> list[str]:
    return [f"{run['label']}: {problem}" for run in facts["runs"] for problem in run["problems"]]


def _runs(facts: Facts) -> str:
    items = "".join(
        f'<li><label><input type="checkbox" checked data-run="{place}"><span class="swatch"></span>'
        f"<b>{escape(run['label'])}</b> <bdi>{escape(run['name'])}</bdi></label>"
        + (f' <span class="status {"finished" if run["finished"] else "unfinished"}">{escape(run["status"])}</span>')
        + "</li>"
        for place, run in enumerate(facts["runs"])
    )
    buttons = '<button type="button" id="all-runs">All</button> <button type="button" id="no-runs">None</button>'
    return f'<section id="runs"><h2>Runs <span class="buttons">{buttons}</span></h2><ul>{items}</ul></section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    """Return a table that can be sorted; heads are escaped here, cells are given as HTML."""
    heads = "".join(f'<th scope="col"><button type="button">{escape(text)}</button></th>' for text in head)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="sortable {kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _cell(value: object, shown: str, *, best: bool = False) -> str:
    key = escape(str(value)) if value is not None else ""
    text = f"<strong>{escape(shown)}</strong>" if best else escape(shown)
    return f'<td data-value="{key}">{text}</td>'


def _head_of_run(facts: Facts, place: int) -> str:
    run = facts["runs"][place]
    label, name = escape(run["label"]), escape(run["name"])
    return (
        f'<th scope="row" data-run="{place}" data-value="{place}" title="{name}">'
        f'<span class="swatch"></span>{label} <bdi class="name">{name}</bdi></th>'
    )


def _values(facts: Facts, key: str, nothing: str) -> str:
    lines = facts[key]
    if not lines:
        return f"<p>{escape(nothing)}</p>"
    rows = [
        [
            _head_of_run(facts, place),
            *(_cell(value, format_value(value)) for value in (line["values"][place] for line in lines)),
        ]
        for place in range(len(facts["runs"]))
    ]
    return _table(("run", *(line["key"] for line in lines)), rows, key)


def _results(facts: Facts) -> str:
    results = facts["results"]
    rows = [
        [
            _head_of_run(facts, place),
            *(
                _cell(
                    result["values"][place],
                    format_value(result["values"][place], result["kind"]),
                    best=place in result["best"],
                )
                for result in results
            ),
        ]
        for place in range(len(facts["runs"]))
    ]
    return _table(("run", *(result["title"] for result in results)), rows, "results")


def _groups(facts: Facts) -> str:
    groups, names, kinds = facts["groups"], group_names(facts), result_kinds(facts)
    if not groups:
        return ""
    keys = [key for key in kinds if any(key in group["measures"] for group in groups)]
    rows = []
    for name, group in zip(names, groups, strict=True):
        members = ", ".join(facts["runs"][place]["label"] for place in group["counted"])
        cells = [_cell(name, f"{name}: {members}"), _cell(group["n"], str(group["n"]))]
        for key in keys:
            spread = group["measures"].get(key)
            cells.append(_cell(spread and spread["mean"], format_spread(spread, kinds[key][1]) if spread else "-"))
        rows.append(cells)
    content = "<p>Runs that differ only in the seed: mean ± standard deviation.</p>"
    content += _table(("group", "n", *(kinds[key][0] for key in keys)), rows, "groups")
    if facts["welch"]:
        rows = []
        for test in facts["welch"]:
            title, kind = kinds[test["measure"]]
            first, second = (names[place] for place in test["groups"])
            difference, interval = format_difference(test, kind)
            verdict = "real" if test["is_real"] else "may be chance"
            shown = (f"{second} - {first}", title, difference, interval, verdict)
            values = (second, title, test["difference"], test["interval"][0], verdict)
            rows.append([_cell(value, cell) for value, cell in zip(values, shown, strict=True)])
        content += f"<p>Differences between groups, with Welch's interval (level {facts['level']:.0%}).</p>"
        content += _table(("groups", "of", "difference", "interval", "verdict"), rows, "welch")
    return _section("Seeds", content)


def _evaluations(runs: Sequence[LoggedRun], labels: Sequence[str], split: str) -> str:
    pairs = zip(labels, runs, strict=True)
    evaluated = [(label, run.evaluations[split]) for label, run in pairs if split in run.evaluations]
    if not evaluated:
        return ""
    names = list(dict.fromkeys(name for _, evaluation in evaluated for name in evaluation["classes"]))
    of_runs = [dict(zip(evaluation["classes"], evaluation["recall"], strict=True)) for _, evaluation in evaluated]
    rows = []
    for name in names:
        shares = [recall.get(name) for recall in of_runs]
        known = [share for share in shares if isinstance(share, float | int)]
        best = max(known) if len(set(known)) > 1 else None
        cells = [
            _cell(share, format_value(share, "accuracy"), best=share is not None and share == best) for share in shares
        ]
        rows.append([_cell(name, name), *cells])
    content = "<h3>Recall</h3>" + _table(("class", *(label for label, _ in evaluated)), rows, "recall")
    matrices = "".join(_matrix(label, evaluation) for label, evaluation in evaluated)
    content += "<h3>Confusion</h3><p>A row for each true class, a column for each predicted one.</p>"
    content += f'<div class="matrices">{matrices}</div>'
    return _section(f"Evaluated on {split}", content)


def _matrix(label: str, evaluation: Facts) -> str:
    classes, confusion = evaluation["classes"], evaluation["confusion"]
    accuracy = format_value(evaluation.get("accuracy"), "accuracy")
    caption = f"<figcaption><b>{escape(label)}</b> {escape(accuracy)}</figcaption>"
    if confusion is None or len(classes) > MOST_CLASSES:
        return f"<figure>{caption}<p>{len(classes):,} classes are too many to show.</p></figure>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = ""
    for place, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        total = sum(counts) or 1
        cells = "".join(
            f'<td class="{"right" if k == place else "wrong"}" style="--share:{count / total:.3f}">{count or ""}</td>'
            for k, count in enumerate(counts)
        )
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    table = f'<table class="matrix"><tr><td></td>{head}</tr>{rows}</table>'
    return f'<figure>{caption}<div class="scroll">{table}</div></figure>'
