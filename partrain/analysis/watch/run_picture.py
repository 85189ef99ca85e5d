"""A picture of a run in text: how far it is, its curves, and whether there is news. Needs the extra `watch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from partrain.analysis.run_table import duration
from partrain.analysis.watch.charts import FRAME_LINES, LEAST_COLUMNS, LEAST_LINES, Look, draw_curves
from partrain.analysis.watch.followed_run import FollowedRun
from partrain.system.terminal_text import loss_text, num_columns

STATUS_STYLES = {
    "running": "bold green",
    "completed": "bold blue",
    "interrupted": "bold yellow",
    "failed": "bold red",
    "broken": "bold red",
}
TRAINING, VALIDATION = "blue", "red"
# From this width on, charts lie side by side; more lines than these make a chart no clearer.
SIDE_BY_SIDE_COLUMNS = 100
MOST_CHART_LINES = 24
# Between two texts in a line.
GAP = "   "


@dataclass(frozen=True)
class Chart:
    """A chart of a run, before it has a size: its title with the meaning of the colours, and its curves."""

    title: Text
    names: Sequence[str]
    colours: Sequence[str]
    is_share: bool


def draw_run(run: FollowedRun, columns: int, lines: int | None, look: Look) -> RenderableType:
    """Return a picture of a run.

    Parameters
    ----------
    run : the run.
    columns : the width of the picture.
    lines : its greatest height; None: as high as it likes.
    look : what the terminal can show.
    """
    head = [headline(run.name, run.status, columns, look), *_progress(run, columns), *_state(run, columns, look)]
    # A problem may take several lines.
    num_lines = sum(-(-line.cell_len // columns) if isinstance(line, Text) else 1 for line in head)
    charts = _charts_that_fit(run, columns, None if lines is None else lines - num_lines, look)
    return Group(*head, *charts)


def headline(name: str, status: str, columns: int, look: Look) -> Text:
    """Return a line with a name at the left and a status at the right."""
    shown = look.fit(status, columns // 2)
    name = look.fit(name, columns - num_columns(shown) - 2)
    spaces = max(1, columns - num_columns(name) - num_columns(shown))
    return Text.assemble((name, "bold"), " " * spaces, (shown, STATUS_STYLES.get(status, "bold")), no_wrap=True)


def bar(completed: float, total: float, columns: int) -> RenderableType:
    """Return a line with a bar."""
    return Padding(ProgressBar(total=max(1, total), completed=completed, width=columns), 0)  # a bar has no line end


def wrapped(items: Sequence[tuple[str, str]], columns: int, look: Look) -> list[Text]:
    """Return texts, each with its style, in as few lines as they need; each is cut if it does not fit into a line."""
    found: list[Text] = []
    for content, style in items:
        content = look.fit(content, columns)
        if found and found[-1].cell_len + len(GAP) + num_columns(content) <= columns:
            found[-1].append(GAP).append(content, style)
        else:
            found.append(Text.assemble((content, style), no_wrap=True))
    return found


def news(run: FollowedRun) -> tuple[str, str]:
    """Return how old the news of a run is, and the style of this text."""
    age = duration(run.seconds_without_news)
    return (f"no news for {age}", "bold yellow") if run.is_quiet else (f"last news {age} ago", "dim")


def _progress(run: FollowedRun, columns: int) -> list[RenderableType]:
    if run.last_step is None or run.has_ended:
        return []
    return [bar(run.step or 0, run.last_step, columns)]


def _state(run: FollowedRun, columns: int, look: Look) -> list[Text]:
    items: list[tuple[str, str]] = []
    if run.epoch is not None:
        of = f"/{run.num_epochs:,.0f}" if run.num_epochs else ""
        items.append((f"epoch {run.epoch:.2f}{of}", ""))
    if run.step is not None:
        of = f"/{run.last_step:,}" if run.last_step is not None else ""
        items.append((f"step {run.step:,}{of}", ""))
    if (left := run.seconds_left) is not None:
        items.append((f"{duration(left)} left", "bold"))
    elif run.seconds is not None:
        items.append((duration(run.seconds), ""))
    if run.rate is not None:
        items.append((f"{run.rate:,.0f} examples/s", ""))
    if run.workers:
        items.append((run.workers, ""))
    if not run.has_ended:
        items.append(news(run))
    if (best := run.best("validation/accuracy", highest=True)) is not None:
        items += [(f"best validation {best[1]:.2%}", ""), (f"at step {best[0]:,}", "")]
    if run.test_accuracy is not None:
        items.append((f"test {run.test_accuracy:.2%}", "bold"))
    found = wrapped(items, columns, look)
    problems = [problem for problem in (run.cause, run.problem) if problem]
    return found + [Text(look.fit(problem, len(problem)), "bold red") for problem in problems]


def _charts_that_fit(run: FollowedRun, columns: int, lines: int | None, look: Look) -> list[RenderableType]:
    """Return the charts: side by side, one below the other, only the first, or none."""
    charts = [chart for chart in _charts(run) if any(run.last(name) is not None for name in chart.names)]
    if not charts:
        return [] if run.has_ended else [Text("no metrics yet", "dim")]
    least = LEAST_LINES + FRAME_LINES + 1
    lines = 2 * (LEAST_COLUMNS + FRAME_LINES) if lines is None else lines
    if lines < least or columns < LEAST_COLUMNS:
        return []
    if columns >= SIDE_BY_SIDE_COLUMNS and len(charts) > 1:
        grid = Table.grid(padding=(0, 2, 0, 0))
        width = columns // 2 - 2
        grid.add_row(*(_draw(run, chart, width, min(lines, MOST_CHART_LINES), look) for chart in charts))
        return [grid]
    if lines < least * len(charts):
        charts = charts[:1]
    height = min(lines // len(charts), MOST_CHART_LINES)
    return [_draw(run, chart, columns, height, look) for chart in charts]


def _charts(run: FollowedRun) -> list[Chart]:
    loss = Text.assemble(("loss", "bold"), "  ", *_legend(run, "train/loss", "training", TRAINING))
    loss.append_text(Text.assemble("  ", *_legend(run, "validation/loss", "validation", VALIDATION)))
    accuracy = run.last("validation/accuracy")
    last = "" if accuracy is None else f"  {accuracy:.2%}"
    title = Text.assemble(("validation accuracy", "bold"), (last, VALIDATION))
    return [
        Chart(loss, ("train/loss", "validation/loss"), (TRAINING, VALIDATION), is_share=False),
        Chart(title, ("validation/accuracy",), (VALIDATION,), is_share=True),
    ]


def _legend(run: FollowedRun, name: str, label: str, colour: str) -> list[tuple[str, str]]:
    value = run.last(name)
    return [] if value is None else [(f"{label} {loss_text(value)}", colour)]


def _draw(run: FollowedRun, chart: Chart, columns: int, lines: int, look: Look) -> RenderableType:
    curves = [run.series(name) for name in chart.names]
    last_step = float(run.last_step or run.step or 1)
    if run.has_ended:
        last_step = float(run.step or 1)
    text = draw_curves(curves, chart.colours, last_step, (columns, lines - 1), look, is_share=chart.is_share)
    chart.title.no_wrap = True
    chart.title.overflow = "crop"
    return Group(chart.title, Text.from_ansi(text, no_wrap=True, overflow="crop"))
