"""The page in a real browser, from a file, without a network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.interface.command_line import main
from tests.analysis.html_report.sample_page import HOSTILE, write_page_of_groups, write_sample_page
from tests.browser import BROWSER, running_browser
from tests.processes import wait_until
from tests.sample_runs import rows_of_a_training, write_rows, write_run

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: install Debian's chromium (apt-get install chromium) to run this"
)
DRAWN_MS = 60_000
CHARTS = ("loss", "accuracy", "gradient_norm", "epsilon", "learning_rate", "examples_per_second")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser of these tests; each test has a context of its own in it."""
    with running_browser() as browser:
        yield browser


@contextlib.contextmanager
def drawn_page(browser: Any, path: Path) -> Iterator[Any]:
    """Open a page and wait until it is drawn. It must not write to the console and must not use the network."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-drawn]", timeout=DRAWN_MS)
    yield tab
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    context.close()


@pytest.fixture
def opened(browser: Any, written_page: Path) -> Iterator[Any]:
    """The page of three runs."""
    with drawn_page(browser, written_page) as tab:
        yield tab


def wait_for(page: Any, condition: str) -> None:
    """Wait until an expression is true in the page.

    It is asked from here: the page's own policy forbids a script that asks again and again within it.
    """
    wait_until(lambda: page.evaluate(condition), condition)


def traces(tab: Any, chart: str = "loss") -> list[dict[str, Any]]:
    return json.loads(tab.evaluate(f"JSON.stringify(document.getElementById('{chart}').data)"))  # type: ignore[no-any-return]


Box = tuple[float, float, float, float]


def boxes(tab: Any, selector: str) -> list[Box]:
    """Return left, top, right and bottom of the visible elements, in pixels."""
    found = tab.evaluate(
        "(selector) => [...document.querySelectorAll(selector)].map((part) => part.getBoundingClientRect())"
        ".filter((box) => box.width).map(({left, top, right, bottom}) => [left, top, right, bottom])",
        selector,
    )
    return [tuple(box) for box in found]


def overlapping(some: list[Box], others: list[Box]) -> list[tuple[Box, Box]]:
    """Return the pairs of different boxes that overlap."""
    return [
        (a, b)
        for a in some
        for b in others
        if a != b and max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])
    ]


def order_of_runs(tab: Any, table: str) -> list[str]:
    heads = tab.locator(f"table.{table} thead th[data-run]")
    return [head.split()[0] for head in heads.all_inner_texts()]


def test_curves_of_all_runs_are_drawn(opened: Any) -> None:
    for chart in ("loss", "accuracy"):
        assert len(traces(opened, chart)) == 6  # training and validation of three runs
        assert opened.locator(f"#{chart} .scatterlayer .trace path.js-line").count() == 6
    assert traces(opened)[0]["x"] == list(range(1, 41))
    assert traces(opened)[2]["y"][-1] is None  # NaN is a gap


@pytest.mark.slow
def test_a_run_is_switched_off_and_on(opened: Any) -> None:
    box = opened.locator("#runs input[data-run='1']")
    box.uncheck()
    wait_for(opened, "document.getElementById('loss').data.length === 4")
    assert all("B " not in trace["name"] for trace in traces(opened))
    assert opened.locator("table.results thead th.off").count() == 1
    box.check()
    wait_for(opened, "document.getElementById('loss').data.length === 6")
    opened.locator("#no-runs").click()
    wait_for(opened, "document.getElementById('loss').data.length === 0")


@pytest.mark.slow
def test_x_axis_is_chosen(opened: Any) -> None:
    for axis, last in (("epoch", 2), ("examples", 1280), ("seconds", pytest.approx(3)), ("step", 40)):
        opened.locator("#x-axis").select_option(axis)
        wait_for(opened, f"document.getElementById('loss').layout.xaxis.title.text === '{axis}'")
        assert traces(opened)[0]["x"][-1] == last


@pytest.mark.slow
def test_smoothing_and_log_scale_change_the_curves(opened: Any) -> None:
    raw = traces(opened)[0]["y"]
    opened.locator("#smoothing").fill("0.9")
    wait_for(opened, "document.getElementById('smoothing-value').value === '0.900'")
    smoothed = traces(opened)[0]["y"]
    assert smoothed[0] == pytest.approx(raw[0])
    assert smoothed[-1] > raw[-1]  # it comes after a falling curve
    opened.locator("#log-loss").check()
    wait_for(opened, "document.getElementById('loss').layout.yaxis.type === 'log'")


def test_raw_curve_is_faintly_behind_the_smoothed_one(opened: Any) -> None:
    opened.locator("#smoothing").fill("0.9")
    wait_for(opened, "document.getElementById('loss').data.length === 9")
    smoothed, raw = traces(opened)[0], traces(opened)[6]
    assert raw["y"] != smoothed["y"]
    assert raw["zorder"] < 0 < raw["opacity"] < 0.5
    opened.locator("#show-raw").uncheck()
    wait_for(opened, "document.getElementById('loss').data.length === 6")


@pytest.mark.slow
def test_high_accuracies_are_shown_as_error_rates_on_a_logarithmic_axis(opened: Any) -> None:
    assert opened.evaluate("document.getElementById('accuracy').layout.yaxis.type") == "log"
    errors, accuracies = (traces(opened, "accuracy")[0][key] for key in ("y", "customdata"))
    assert errors == pytest.approx([1 - accuracy for accuracy in accuracies])
    opened.locator("#log-accuracy").uncheck()
    wait_for(opened, "document.getElementById('accuracy').layout.yaxis.type === 'linear'")
    assert traces(opened, "accuracy")[0]["y"] == accuracies


@pytest.mark.slow
def test_each_curve_has_the_label_of_its_run_at_a_place_of_its_own(opened: Any) -> None:
    labels = opened.evaluate("document.getElementById('loss').layout.annotations.map(({text, x}) => [text, x])")
    assert [text for text, _ in labels] == ["<b>A</b>", "<b>B</b>", "<b>C</b>"]
    assert len({x for _, x in labels}) == 3


def test_the_run_under_the_pointer_is_emphasised(opened: Any) -> None:
    opened.hover("#runs li[data-run='1']")
    wait_for(opened, "document.getElementById('loss').data[0].opacity < 0.2")
    assert [trace["opacity"] for trace in traces(opened)] == [0.12, 1, 0.12] * 2
    opened.hover("h1")
    wait_for(opened, "document.getElementById('loss').data[0].opacity === 1")


@pytest.mark.slow
def test_runs_that_differ_only_in_the_seed_are_a_mean_with_a_band(browser: Any, tmp_path: Path) -> None:
    with drawn_page(browser, write_page_of_groups(tmp_path)) as tab:
        names = [trace.get("name", "band") for trace in traces(tab)]
        means = ["group 1: mean of A, B", "group 2: mean of C, D"]
        assert names == [*means, "E alone", *means, *["band"] * 4]
        mean, low_and_high = (traces(tab)[k]["y"] for k in (0, 5))
        assert len(low_and_high) == 2 * len(mean)
        for middle, high, low in zip(mean, low_and_high, reversed(low_and_high), strict=False):
            assert middle == pytest.approx((low + high) / 2, abs=1e-9)
        tab.locator("#show-groups").uncheck()
        wait_for(tab, "document.getElementById('loss').data.length === 9")
        tab.locator("#show-groups").check()
        tab.locator("#runs input[data-run='1']").uncheck()  # one seed is no group
        wait_for(tab, "document.getElementById('loss').data[0].name === 'A 0.01-0'")
        drawn = [chart for chart in CHARTS if tab.locator(f"#{chart}").is_visible()]
        assert drawn == ["loss", "accuracy", "gradient_norm", "learning_rate"]
        assert traces(tab, "gradient_norm")[0]["y"] == [2.0] * 40
        assert len(traces(tab, "learning_rate")) == 3


@pytest.mark.slow
def test_group_keeps_a_curve_that_only_some_of_its_runs_have(browser: Any, tmp_path: Path) -> None:
    with drawn_page(browser, write_page_of_groups(tmp_path)) as tab:
        smoothed = traces(tab, "gradient_norm")[0]
        assert smoothed["name"] == "group 1: only A"
        assert smoothed["y"] == pytest.approx([2.0] * 40)


@pytest.mark.slow
def test_curve_without_numbers_to_draw_has_no_label(browser: Any, tmp_path: Path) -> None:
    with drawn_page(browser, write_page_of_groups(tmp_path)) as tab:
        labels = "document.getElementById('loss').layout.annotations.map((label) => label.text)"
        assert tab.evaluate(labels) == ["<b>group 1</b>", "<b>group 2</b>", "<b>E</b>"]
        tab.locator("#x-axis").select_option("epoch")
        wait_for(tab, f"{labels}.join() === '<b>group 1</b>,<b>group 2</b>'")


@pytest.mark.slow
def test_value_that_a_logarithmic_axis_does_not_reach_is_a_gap(browser: Any, tmp_path: Path) -> None:
    with drawn_page(browser, write_page_of_groups(tmp_path)) as tab:
        assert traces(tab)[2]["y"] == [None] * 20 + [0.5] * 20
        tab.locator("#log-loss").uncheck()
        wait_for(tab, "document.getElementById('loss').layout.yaxis.type === 'linear'")
        assert traces(tab)[2]["y"] == [0] * 20 + [0.5] * 20


@pytest.mark.slow
@pytest.mark.parametrize("write_page", [write_sample_page, write_page_of_groups])
def test_menu_of_a_chart_covers_neither_curves_nor_labels(
    browser: Any, tmp_path: Path, write_page: Callable[[Path], Path]
) -> None:
    with drawn_page(browser, write_page(tmp_path)) as tab:
        menus = boxes(tab, ".modebar")
        assert len(menus) == len(boxes(tab, ".nsewdrag")) >= 3
        assert not overlapping(menus, boxes(tab, ".nsewdrag") + boxes(tab, ".annotation"))


@pytest.mark.slow
def test_page_of_one_run_has_readable_axes_and_only_controls_for_its_curves(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", seed=1, final_accuracy=0.97)
    page = tmp_path / "page.html"
    assert main(["compare", str(run), "--html", str(page), "-q"]) == 0
    with drawn_page(browser, page) as tab:
        tab.set_viewport_size({"width": 700, "height": 800})
        wait_for(tab, "document.querySelector('#accuracy .main-svg').clientWidth <= 700")
        numbers = boxes(tab, "#accuracy .ytick text")
        assert len(numbers) >= 2
        assert not overlapping(numbers, numbers)
        assert not overlapping(numbers, boxes(tab, "#accuracy .ytitle"))
        assert tab.locator("#validation-control").is_visible()
    write_rows(run, [row for row in rows_of_a_training(40, 0, 0.01, 0.98) if "train/loss" in row])
    assert main(["compare", str(run), "--html", str(page), "-q"]) == 0
    with drawn_page(browser, page) as tab:
        assert not tab.locator("#validation-control").is_visible()


@pytest.mark.slow
def test_a_zoom_shows_the_points_in_view(opened: Any) -> None:
    opened.evaluate("Plotly.relayout('loss', {'xaxis.range[0]': 10, 'xaxis.range[1]': 20})")
    wait_for(opened, "document.getElementById('loss').data[0].x.length < 20")
    shown = traces(opened)[0]["x"]
    assert (min(shown), max(shown)) == (9, 21)


@pytest.mark.slow
def test_tables_are_sorted_by_their_heads(opened: Any) -> None:
    head = opened.locator("table.results th", has_text="test accuracy").locator("button")
    assert order_of_runs(opened, "results") == ["A", "B", "C"]
    head.click()
    assert order_of_runs(opened, "results") == ["A", "B", "C"]
    head.click()
    assert order_of_runs(opened, "results") == ["B", "A", "C"]  # what is missing stays last
    opened.locator("table.configuration th", has_text="lr").locator("button").click()
    opened.locator("table.configuration th", has_text="lr").locator("button").click()
    assert order_of_runs(opened, "configuration") == ["C", "B", "A"]


def test_names_are_shown_also_beside_matrices_and_not_executed(opened: Any) -> None:
    opened.wait_for_timeout(100)
    assert opened.evaluate("window.hurt") is None
    assert opened.locator("img").count() == 0
    shown = opened.locator("#runs bdi").all_inner_texts()
    assert shown == ["one", HOSTILE, "三"]
    assert opened.locator("table.recall tbody td", has_text="<script>").count() == 1
    assert opened.locator("table.recall thead th").count() == 3
    assert opened.locator("table.matrix").count() == 2


@pytest.mark.slow
def test_page_fits_the_screen_and_takes_its_colours(opened: Any) -> None:
    for width, scheme, ground in ((1400, "light", "#ffffff"), (390, "dark", "#14171c")):
        opened.emulate_media(color_scheme=scheme)
        opened.set_viewport_size({"width": width, "height": 800})
        wait_for(opened, f"document.getElementById('loss').layout.paper_bgcolor === '{ground}'")
        wait_for(opened, f"document.querySelector('#loss .main-svg').clientWidth <= {width}")
        assert opened.evaluate("document.documentElement.scrollWidth") == width


def test_a_browser_without_decompression_still_shows_the_tables(browser: Any, written_page: Path) -> None:
    context = browser.new_context()
    context.add_init_script("delete window.DecompressionStream")
    tab = context.new_page()
    tab.goto(written_page.as_uri())
    tab.wait_for_selector("#no-curves:not([hidden])")
    assert "too old" in tab.locator("#no-curves").inner_text()
    assert order_of_runs(tab, "results") == ["A", "B", "C"]
    context.close()
