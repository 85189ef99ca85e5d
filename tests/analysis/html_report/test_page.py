"""The page in a real browser, from a file, without a network."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.analysis.html_report import page as page_module
from tests.processes import wait_until
from tests.program import Result
from tests.sample_runs import evaluation, write_json, write_run

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<script>window.hurt=1<🙂><img src=x onerror=window.hurt=2>\"'&amp;"
DRAWN_MS = 60_000

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no browser: install Debian's chromium (apt-get install chromium) to run this"
)


@pytest.fixture
def browser() -> Iterator[Any]:
    """A browser of the test's own: no test may leave a process."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]' to run this")
    with sync_api.sync_playwright() as playwright:
        # A new profile each time: Playwright makes it, and removes it.
        started = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def written_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one with a hostile name, one that is unfinished with values that are not finite."""
    from partrain.interface.command_line import main

    folder = tmp_path_factory.mktemp("page")
    runs = [
        write_run(folder / "one", seed=1, final_accuracy=0.97),
        write_run(folder / HOSTILE, seed=2, lr=0.02, config_changes={"name": HOSTILE}),
        write_run(folder / "三", seed=3, lr=0.03, status="interrupted", num_steps=30),
    ]
    for run, predictions in zip(runs, ([0, 1, 2, 2], [0, 1, 1, 2]), strict=False):
        write_json(run / "evaluation-test.json", evaluation([0, 1, 2, 2], predictions, ["a", HOSTILE, "ç"]))
    with open(runs[2] / "metrics.jsonl", "a") as file:
        file.write('{"step": 31, "train/loss": "NaN", "train/accuracy": "Infinity"}\n')
    assert main(["compare", *map(str, runs), "--html", str(folder / "page.html"), "-q"]) == 0
    return folder / "page.html"


@pytest.fixture
def opened(browser: Any, written_page: Path) -> Iterator[Any]:
    """The drawn page. It must not write to the console and must not use the network."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(written_page.as_uri())
    tab.wait_for_selector("html[data-drawn]", timeout=DRAWN_MS)
    yield tab
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [written_page.as_uri()]
    context.close()


def wait_for(page: Any, condition: str) -> None:
    """Wait until an expression is true in the page.

    It is asked from here: the page's own policy forbids a script that asks again and again within it.
    """
    wait_until(lambda: page.evaluate(condition), condition)


def traces(tab: Any, chart: str = "loss") -> list[dict[str, Any]]:
    return json.loads(tab.evaluate(f"JSON.stringify(document.getElementById('{chart}').data)"))  # type: ignore[no-any-return]


def first_column(tab: Any, table: str) -> list[str]:
    heads = tab.locator(f"table.{table} tbody th")
    return [head.split()[0] for head in heads.all_inner_texts()]


@needs_browser
def test_curves_of_all_runs_are_drawn(opened: Any) -> None:
    for chart in ("loss", "accuracy"):
        assert len(traces(opened, chart)) == 6  # training and validation of three runs
        assert opened.locator(f"#{chart} .scatterlayer .trace path.js-line").count() == 6
    assert traces(opened)[0]["x"] == list(range(1, 41))
    assert traces(opened)[2]["y"][-1] is None  # NaN is a gap


@needs_browser
def test_a_run_is_switched_off_and_on(opened: Any) -> None:
    box = opened.locator("#runs input[data-run='1']")
    box.uncheck()
    wait_for(opened, "document.getElementById('loss').data.length === 4")
    assert all("B " not in trace["name"] for trace in traces(opened))
    assert opened.locator("table.results tr.off").count() == 1
    box.check()
    wait_for(opened, "document.getElementById('loss').data.length === 6")
    opened.locator("#no-runs").click()
    wait_for(opened, "document.getElementById('loss').data.length === 0")


@needs_browser
def test_x_axis_is_chosen(opened: Any) -> None:
    for axis, last in (("epoch", 2), ("examples", 1280), ("seconds", pytest.approx(3)), ("step", 40)):
        opened.locator("#x-axis").select_option(axis)
        wait_for(opened, f"document.getElementById('loss').layout.xaxis.title.text === '{axis}'")
        assert traces(opened)[0]["x"][-1] == last


@needs_browser
def test_smoothing_and_log_scale_change_the_curves(opened: Any) -> None:
    raw = traces(opened)[0]["y"]
    opened.locator("#smoothing").fill("0.9")
    wait_for(opened, "document.getElementById('smoothing-value').value === '0.900'")
    smoothed = traces(opened)[0]["y"]
    assert smoothed[0] == pytest.approx(raw[0])
    assert smoothed[-1] > raw[-1]  # it comes after a falling curve
    opened.locator("#log-loss").check()
    wait_for(opened, "document.getElementById('loss').layout.yaxis.type === 'log'")


@needs_browser
def test_a_zoom_shows_the_points_in_view(opened: Any) -> None:
    opened.evaluate("Plotly.relayout('loss', {'xaxis.range[0]': 10, 'xaxis.range[1]': 20})")
    wait_for(opened, "document.getElementById('loss').data[0].x.length < 20")
    shown = traces(opened)[0]["x"]
    assert (min(shown), max(shown)) == (9, 21)


@needs_browser
def test_tables_are_sorted_by_their_heads(opened: Any) -> None:
    head = opened.locator("table.results th", has_text="test accuracy").locator("button")
    assert first_column(opened, "results") == ["A", "B", "C"]
    head.click()
    assert first_column(opened, "results") == ["A", "B", "C"]
    head.click()
    assert first_column(opened, "results") == ["B", "A", "C"]  # what is missing stays last
    opened.locator("table.configuration th", has_text="lr").locator("button").click()
    opened.locator("table.configuration th", has_text="lr").locator("button").click()
    assert first_column(opened, "configuration") == ["C", "B", "A"]


@needs_browser
def test_names_are_shown_also_beside_matrices_and_not_executed(opened: Any) -> None:
    opened.wait_for_timeout(100)
    assert opened.evaluate("window.hurt") is None
    assert opened.locator("img").count() == 0
    shown = opened.locator("#runs bdi").all_inner_texts()
    assert shown == ["one", HOSTILE, "三"]
    assert opened.locator("table.recall tbody td", has_text="<script>").count() == 1
    assert opened.locator("table.recall thead th").count() == 3
    assert opened.locator("table.matrix").count() == 2


@needs_browser
def test_page_fits_the_screen_and_takes_its_colours(opened: Any) -> None:
    for width, scheme, ground in ((1400, "light", "#ffffff"), (390, "dark", "#14171c")):
        opened.emulate_media(color_scheme=scheme)
        opened.set_viewport_size({"width": width, "height": 800})
        wait_for(opened, f"document.getElementById('loss').layout.paper_bgcolor === '{ground}'")
        wait_for(opened, f"document.querySelector('#loss .main-svg').clientWidth <= {width}")
        assert opened.evaluate("document.documentElement.scrollWidth") == width


@needs_browser
def test_a_browser_without_decompression_still_shows_the_tables(browser: Any, written_page: Path) -> None:
    context = browser.new_context()
    context.add_init_script("delete window.DecompressionStream")
    tab = context.new_page()
    tab.goto(written_page.as_uri())
    tab.wait_for_selector("#no-curves:not([hidden])")
    assert "too old" in tab.locator("#no-curves").inner_text()
    assert first_column(tab, "results") == ["A", "B", "C"]
    context.close()


def test_page_is_one_file_that_names_nothing_outside(written_page: Path) -> None:
    text = written_page.read_text()
    assert "src=" not in text.replace("&lt;img src=x", "")
    assert "href=" not in text
    assert page_module.POLICY in text
    assert "<script>window" not in text


def test_page_of_twenty_long_runs_weighs_little(tmp_path: Path, call_partrain: Callable[..., Result]) -> None:
    runs = [write_run(tmp_path / f"run-{seed}", seed=seed, num_steps=20) for seed in range(20)]
    long_run = write_run(tmp_path / "long", num_steps=10_000)
    for run in runs:
        shutil.copy(long_run / "metrics.jsonl", run / "metrics.jsonl")
    result = call_partrain("compare", *runs, "--html", tmp_path / "page.html", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "page.html").stat().st_size < 8_000_000


def test_mistakes_are_reported(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    for file in (tmp_path, tmp_path / "missing" / "page.html"):
        result = call_partrain("compare", *runs, "--html", file)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "cannot be written" in result.stderr
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = call_partrain("compare", *runs, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "pip install 'partrain[report]'" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
