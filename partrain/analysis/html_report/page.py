"""The comparison page: tables in HTML, which need no script, and curves that a script draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import partrain
from partrain.analysis.comparison.comparison import Facts
from partrain.analysis.comparison.text import (
    describe_mcnemar,
    describe_parameters,
    describe_significance,
    format_difference,
    format_spread,
    format_value,
    group_names,
    result_kinds,
)
from partrain.analysis.html_report.curves import curves, pack, pack_json
from partrain.analysis.logged_run import LoggedRun
from partrain.data.split_name import SplitName
from partrain.errors import MissingPackage
from partrain.store.output_files import write_output_file

# Larger confusion matrices are not readable.
MAX_CLASSES = 30
# Only what is in the page itself may run or load: a second barrier against scripts in the names of runs.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_page(path: Path, runs: Sequence[LoggedRun], facts: Facts) -> None:
    """Write the page of a comparison.

    Parameters
    ----------
    path : the file; replaced if it exists.
    runs : the runs that are compared.
    facts : the comparison, as `compare` returns it.

    Raises
    ------
    MissingPackage
        plotly is not installed.
    ConfigError, ResourceError
        The file cannot be written (see `write_output_file`).
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise MissingPackage("plotly", "report", "--html") from error
    text = page(runs, facts, get_plotlyjs())
    # A surrogate represents a byte of a name that is not valid UTF-8.
    write_output_file(path, text.encode("utf-8", errors="replace"), "--html")


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
            f"<header><h1>Comparison of {len(runs)} runs</h1></header>",
            "<main>",
            _runs(facts),
            _asset("curves.html"),
            _section("Configuration", _values(facts, "configuration")),
            _section("Results", _results(facts)),
            _section("Parameters", _list(describe_parameters(labels, entry) for entry in facts["parameters"])),
            _groups(facts),
            _section(
                "Significance",
                _list(describe_mcnemar(labels, test, facts["level"]) for test in facts["mcnemar"]),
            ),
            *(_evaluations(runs, labels, split) for split in reversed(SplitName)),
            _section("Environment", _values(facts, "surroundings")),
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
<title>Comparison of {len(runs)} runs</title>
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
        f'<li><label><input type="checkbox" checked data-run="{index}"><span class="swatch"></span>'
        f"<b>{escape(run['label'])}</b> <bdi>{escape(run['name'])}</bdi></label>"
        + (f' <span class="status {"finished" if run["finished"] else "unfinished"}">{escape(run["status"])}</span>')
        + "</li>"
        for index, run in enumerate(facts["runs"])
    )
    buttons = '<button type="button" id="all-runs">All</button> <button type="button" id="no-runs">None</button>'
    return f'<section id="runs"><h2>Runs <span class="buttons">{buttons}</span></h2><ul>{items}</ul></section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    """Return a sortable table; `head` is escaped here, `rows` are HTML."""
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


def _run_header(facts: Facts, index: int) -> str:
    run = facts["runs"][index]
    label, name = escape(run["label"]), escape(run["name"])
    return (
        f'<th scope="row" data-run="{index}" data-value="{index}" title="{name}">'
        f'<span class="swatch"></span>{label} <bdi class="name">{name}</bdi></th>'
    )


def _values(facts: Facts, key: str) -> str:
    lines = facts[key]
    if not lines:
        return "<p>No difference.</p>"
    rows = [
        [
            _run_header(facts, index),
            *(_cell(value, format_value(value)) for value in (line["values"][index] for line in lines)),
        ]
        for index in range(len(facts["runs"]))
    ]
    return _table(("run", *(line["key"] for line in lines)), rows, key)


def _results(facts: Facts) -> str:
    results = facts["results"]
    rows = [
        [
            _run_header(facts, index),
            *(
                _cell(
                    result["values"][index],
                    format_value(result["values"][index], result["kind"]),
                    best=index in result["best"],
                )
                for result in results
            ),
        ]
        for index in range(len(facts["runs"]))
    ]
    return _table(("run", *(result["title"] for result in results)), rows, "results")


def _groups(facts: Facts) -> str:
    groups, names, kinds = facts["groups"], group_names(facts), result_kinds(facts)
    if not groups:
        return ""
    keys = [key for key in kinds if any(key in group["measures"] for group in groups)]
    rows = []
    for name, group in zip(names, groups, strict=True):
        members = ", ".join(facts["runs"][index]["label"] for index in group["counted"])
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
            first, second = (names[index] for index in test["groups"])
            difference, interval = format_difference(test, kind)
            verdict = describe_significance(test)
            shown = (f"{second} - {first}", title, difference, interval, verdict)
            values = (second, title, test["difference"], test["interval"][0], verdict)
            rows.append([_cell(value, cell) for value, cell in zip(values, shown, strict=True)])
        content += f"<p>Differences between groups, with Welch's {facts['level']:.0%} confidence interval.</p>"
        content += _table(("groups", "result", "difference", "interval", "significance"), rows, "welch")
    return _section("Groups", content)


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
    content += "<h3>Confusion matrix</h3><p>Rows are true classes, columns are predicted classes.</p>"
    content += f'<div class="matrices">{matrices}</div>'
    return _section(f"Evaluation on the {split} split", content)


def _matrix(label: str, evaluation: Facts) -> str:
    classes, confusion = evaluation["classes"], evaluation["confusion"]
    accuracy = format_value(evaluation.get("accuracy"), "accuracy")
    caption = f"<figcaption><b>{escape(label)}</b> {escape(accuracy)}</figcaption>"
    if confusion is None or len(classes) > MAX_CLASSES:
        return f"<figure>{caption}<p>{len(classes):,} classes are too many for a matrix.</p></figure>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = ""
    for index, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        total = sum(counts) or 1
        cells = "".join(
            f'<td class="{"right" if k == index else "wrong"}" style="--share:{count / total:.3f}">{count or ""}</td>'
            for k, count in enumerate(counts)
        )
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    table = f'<table class="matrix"><tr><td></td>{head}</tr>{rows}</table>'
    return f'<figure>{caption}<div class="scroll">{table}</div></figure>'
