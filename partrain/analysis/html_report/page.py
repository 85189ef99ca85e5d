"""The comparison page: tables in HTML, which need no script, and curves that a script draws."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from partrain.analysis.comparison.comparison import Facts
from partrain.analysis.comparison.text import describe_mcnemar, describe_parameters, describe_user_notes
from partrain.analysis.html_report.curves import curves
from partrain.analysis.html_report.document import asset, document, list_of, plotly_source, section, write_document
from partrain.analysis.html_report.tables import (
    configuration_table,
    confusion_matrix,
    groups_tables,
    recall_table,
    results_table,
)
from partrain.analysis.logged_run import LoggedRun
from partrain.data.split_name import SplitName


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
    write_document(path, page(runs, facts, plotly_source()))


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
        section("Configuration", configuration_table(facts, "configuration")),
        section("Results", results_table(facts)),
    ]
    body = "\n".join(
        [
            _runs(facts),
            list_of(describe_user_notes(facts)),
            asset("curves.html"),
            # A comparison starts with the differences. A single run has none: its whole configuration is listed.
            *(reversed(summary) if alone else summary),
            section("Parameters", list_of(describe_parameters(labels, entry) for entry in facts["parameters"])),
            section("Groups", groups_tables(facts)),
            section("Significance", _significance(labels, facts)),
            *(_evaluations(runs, labels, split) for split in reversed(SplitName)),
            section("Environment", configuration_table(facts, "surroundings")),
            section("Notes", list_of(facts["notes"] + _problems(facts))),
        ]
    )
    scripts = ("unpacking.js", "sorting.js", "curves.js", "charts.js", "page.js")
    return document(title, body, data, scripts, plotly)


def _significance(labels: Sequence[str], facts: Facts) -> str:
    return list_of(describe_mcnemar(labels, test, facts["level"]) for test in facts["mcnemar"])


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
    return section(
        f"Evaluation on the {split} split",
        f"<h3>Recall</h3>{recall_table(evaluated)}"
        f"<h3>Confusion matrix</h3>{legend}"
        f'<div class="matrices">{matrices}</div>',
    )
