"""The comparison page: tables in HTML, which need no script, and curves that a script draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import partrain
from partrain.analysis.comparison.comparison import Facts
from partrain.analysis.comparison.text import describe_mcnemar, describe_parameters, describe_user_notes
from partrain.analysis.html_report.curves import curves, pack, pack_json
from partrain.analysis.html_report.tables import (
    configuration_table,
    confusion_matrix,
    groups_tables,
    recall_table,
    results_table,
)
from partrain.analysis.logged_run import LoggedRun
from partrain.data.split_name import SplitName
from partrain.errors import MissingPackage
from partrain.store.output_files import write_output_file

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
    data = {
        "runs": [name | curve for name, curve in zip(names, curves(runs), strict=True)],
        "groups": [group["counted"] for group in facts["groups"]],
    }
    alone = len(runs) == 1
    title = f"Run {names[0]['name']}" if alone else f"Comparison of {len(runs)} runs"
    summary = [
        _section("Configuration", configuration_table(facts, "configuration")),
        _section("Results", results_table(facts)),
    ]
    body = "\n".join(
        [
            f"<header><h1>{escape(title)}</h1></header>",
            "<main>",
            _runs(facts),
            _list(describe_user_notes(facts)),
            _asset("curves.html"),
            # A comparison starts with the differences. A single run has none: its whole configuration is listed.
            *(reversed(summary) if alone else summary),
            _section("Parameters", _list(describe_parameters(labels, entry) for entry in facts["parameters"])),
            _section("Groups", groups_tables(facts)),
            _section("Significance", _significance(labels, facts)),
            *(_evaluations(runs, labels, split) for split in reversed(SplitName)),
            _section("Environment", configuration_table(facts, "surroundings")),
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
<title>{escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
{body}
<script type="text/plain" id="packed-plotly">{pack(plotly.encode())}</script>
<script type="text/plain" id="packed-runs">{pack_json(data)}</script>
<script>
{_asset("curves.js")}{_asset("charts.js")}{_asset("page.js")}</script>
</body>
</html>
"""


def _significance(labels: Sequence[str], facts: Facts) -> str:
    return _list(describe_mcnemar(labels, test, facts["level"]) for test in facts["mcnemar"])


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
    alone = len(facts["runs"]) == 1
    items = "".join(
        f'<li data-run="{index}"><label>'
        f'<input type="checkbox" checked data-run="{index}"{" hidden" if alone else ""}><span class="swatch"></span>'
        f"<b>{escape(run['label'])}</b> <bdi>{escape(run['name'])}</bdi></label>"
        + (f' <span class="status {"finished" if run["finished"] else "unfinished"}">{escape(run["status"])}</span>')
        + "</li>"
        for index, run in enumerate(facts["runs"])
    )
    buttons = '<button type="button" id="all-runs">All</button> <button type="button" id="no-runs">None</button>'
    choice = "" if alone else f' <span class="buttons">{buttons}</span>'
    return f'<section id="runs"><h2>{"Run" if alone else "Runs"}{choice}</h2><ul>{items}</ul></section>'


def _evaluations(runs: Sequence[LoggedRun], labels: Sequence[str], split: str) -> str:
    pairs = zip(labels, runs, strict=True)
    evaluated = [(label, run.evaluations[split]) for label, run in pairs if split in run.evaluations]
    if not evaluated:
        return ""
    matrices = "".join(confusion_matrix(label, evaluation) for label, evaluation in evaluated)
    has_matrix = '<table class="matrix' in matrices
    legend = "<p>Rows are true classes, columns are predicted classes.</p>" if has_matrix else ""
    return _section(
        f"Evaluation on the {split} split",
        f"<h3>Recall</h3>{recall_table(evaluated)}"
        f"<h3>Confusion matrix</h3>{legend}"
        f'<div class="matrices">{matrices}</div>',
    )
