"""A page as a single file: its parts, and the scripts that draw its charts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import partrain
from partrain.analysis.html_report.curves import pack, pack_json
from partrain.errors import MissingPackage
from partrain.store.output_files import write_output_file

# Only what is in the page itself may run or load: a second barrier against scripts in the names of runs.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def require_plotly() -> None:
    """Check that plotly is installed, before anything is computed; raise MissingPackage if not."""
    if importlib.util.find_spec("plotly") is None:
        raise MissingPackage("plotly", "report", "--html")


def plotly_source() -> str:
    """Return the source of plotly.js.

    Raises
    ------
    MissingPackage
        plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise MissingPackage("plotly", "report", "--html") from error
    return str(get_plotlyjs())


def document(title: str, body: str, data: object, scripts: Sequence[str], plotly: str) -> str:
    """Return a page.

    Parameters
    ----------
    title : its title, as text.
    body : what is between header and footer, in HTML.
    data : plain values for the scripts.
    scripts : the names of the scripts in this package, in their order.
    plotly : the source of plotly.js.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{asset("page.css")}</style>
</head>
<body>
<header><h1>{escape(title)}</h1></header>
<main>
{body}
</main>
<footer>partrain {escape(partrain.__version__)}</footer>
<script type="text/plain" id="packed-plotly">{pack(plotly.encode())}</script>
<script type="text/plain" id="packed-data">{pack_json(data)}</script>
<script>
{"".join(map(asset, scripts))}</script>
</body>
</html>
"""


def write_document(path: Path, text: str) -> None:
    """Write a page.

    Raises
    ------
    ConfigError, ResourceError
        The file cannot be written (see `write_output_file`).
    """
    # A surrogate represents a byte of a name that is not valid UTF-8.
    write_output_file(path, text.encode("utf-8", errors="replace"), "--html")


def asset(name: str) -> str:
    """Return the text of a file in this package."""
    return resources.files("partrain.analysis.html_report").joinpath(name).read_text(encoding="utf-8")


def section(title: str, content: str) -> str:
    """Return a section in HTML; empty if its content is."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def list_of(lines: Iterable[str]) -> str:
    """Return a list of texts in HTML; empty if there is none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""
