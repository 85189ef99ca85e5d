"""A picture of a sweep in text: a table of its trials, and their validation curves. Needs the extra `watch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from partrain.analysis.run_table import duration
from partrain.analysis.watch.charts import FRAME_LINES, LEAST_COLUMNS, LEAST_LINES, Look, draw_curves
from partrain.analysis.watch.followed_sweep import FollowedSweep, FollowedTrial
from partrain.analysis.watch.run_picture import MOST_CHART_LINES, bar, headline, news, wrapped
from partrain.system.terminal_text import loss_text, num_columns, printable, table

# The best trial has the first colour, then those that train; without colours all look the same.
COLOURS = ("blue", "green", "yellow", "magenta", "cyan", "red")
STYLES = {"running": "green", "waiting": "dim", "failed": "red", "broken": "red", "pruned": "dim"}
# The order of the rows in a table that has not enough lines for all; among equals, better ones come first.
ORDER = ("running", "failed", "broken", "interrupted", "completed", "pruned", "waiting")
# Columns that a narrow table leaves out, in this order.
OPTIONAL = ("seed", "left", "epoch")
MOST_VALUE_COLUMNS = 20


def draw_sweep(sweep: FollowedSweep, columns: int, lines: int | None, look: Look) -> RenderableType:
    """Return a picture of a sweep.

    Parameters
    ----------
    sweep : the sweep.
    columns : the width of the picture.
    lines : its greatest height; None: as high as it likes.
    look : what the terminal can show.
    """
    best = sweep.best
    head: list[RenderableType] = [
        headline(sweep.name, sweep.record.kind, columns, look),
        bar(sum(trial.run.has_ended for trial in sweep.trials), sweep.record.num_trials, columns),
        *_state(sweep, best, columns, look),
    ]
    curves = _drawn(sweep, best)
    least_chart = LEAST_LINES + FRAME_LINES + 1 if curves and columns >= LEAST_COLUMNS else 0
    room = None if lines is None else max(2, lines - len(head) - least_chart)
    rows = _table(sweep, best, columns, room, look)
    left = MOST_CHART_LINES if lines is None else min(lines - len(head) - len(rows), MOST_CHART_LINES)
    if not least_chart or left < least_chart:
        return Group(*head, *rows)
    is_share = sweep.record.objective == "validation/accuracy"
    chart = draw_curves(
        [trial.run.series(sweep.record.objective) for trial in curves],
        [COLOURS[k % len(COLOURS)] for k in range(len(curves))],
        max(float(trial.run.last_step or 1) for trial in curves),
        (columns, left - 1),
        look,
        is_share=is_share,
    )
    numbers = Text.assemble((sweep.record.objective, "bold"), no_wrap=True, overflow="crop")
    for k, trial in enumerate(curves):
        numbers.append(f"  trial {trial.trial.number}", COLOURS[k % len(COLOURS)])
    return Group(*head, *rows, numbers, Text.from_ansi(chart, no_wrap=True, overflow="crop"))


def _state(sweep: FollowedSweep, best: FollowedTrial | None, columns: int, look: Look) -> list[Text]:
    counts = [(len(sweep.with_status(status)), status) for status in ORDER if status != "waiting"]
    counts.append((sweep.num_waiting, "waiting"))
    items = [(f"{sweep.record.num_trials} trials", "")]
    items += [(f"{count} {status}", STYLES.get(status, "")) for count, status in counts if count]
    if (left := sweep.seconds_left) is not None:
        items.append((f"{duration(left)} left", "bold"))
    newest = sweep.newest
    if newest is not None and not sweep.has_ended:
        items.append(news(newest) if sweep.with_status("running") else (news_of_none(newest.seconds_without_news), ""))
    if best is not None and (value := sweep.objective(best)) is not None:
        settings = ", ".join(f"{key}={_value(value)}" for key, value in _short(best.trial.settings).items())
        items.append((f"best {_objective(sweep, value)}: trial {best.trial.number}", "bold"))
        items += [(settings, "")] if settings else []
    found = wrapped(items, columns, look)
    return found + ([Text(look.fit(sweep.problem, len(sweep.problem)), "bold red")] if sweep.problem else [])


def news_of_none(seconds: float) -> str:
    """Return how long no trial has been training."""
    return f"nothing has trained for {duration(seconds)}"


def _drawn(sweep: FollowedSweep, best: FollowedTrial | None) -> list[FollowedTrial]:
    """Return the trials whose curves are drawn, the best one first."""
    trials = [*([best] if best else []), *sweep.with_status("running"), *_by_objective(sweep, sweep.trials)]
    evaluated = [trial for trial in dict.fromkeys(trials) if sweep.objective(trial) is not None]
    return evaluated[: len(COLOURS)]


def _by_objective(sweep: FollowedSweep, trials: Sequence[FollowedTrial]) -> list[FollowedTrial]:
    """Return trials, better ones first, and those without a value last."""
    sign = -1 if sweep.record.wants_highest else 1

    def key(trial: FollowedTrial) -> tuple[bool, float]:
        value = sweep.objective(trial)
        return (value is None, 0.0 if value is None else sign * value)

    return sorted(trials, key=key)


def _table(sweep: FollowedSweep, best: FollowedTrial | None, columns: int, room: int | None, look: Look) -> list[Text]:
    """Return a table of the trials; if there is not enough room, of the most interesting ones."""
    trials = list(sweep.trials)
    num_more = 0
    if room is not None and len(trials) + 1 > room:
        trials = sorted(_by_objective(sweep, trials), key=lambda trial: ORDER.index(trial.status))
        trials, num_more = trials[: max(1, room - 2)], len(trials) - max(1, room - 2)
    if not trials:
        return []
    cells = [_cells(sweep, trial) for trial in trials]
    names = list(cells[0])
    lines = _aligned(names, cells)
    for name in OPTIONAL:
        if max(map(num_columns, lines)) > columns and name in names:
            names.remove(name)
            lines = _aligned(names, cells)
    styles = ["bold", *(_style(trial, best) for trial in trials)]
    found = [
        Text(look.fit(line, columns), style, no_wrap=True, overflow="crop")
        for line, style in zip(lines, styles, strict=True)
    ]
    return found + ([Text(look.fit(f"and {num_more} more", columns), "dim")] if num_more else [])


def _aligned(names: Sequence[str], cells: Sequence[Mapping[str, str]]) -> list[str]:
    return table(names, [[row[name] for name in names] for row in cells], (names.index("state"),))


def _style(trial: FollowedTrial, best: FollowedTrial | None) -> str:
    return f"bold {COLOURS[0]}" if trial is best else STYLES.get(trial.status, "")


def _cells(sweep: FollowedSweep, trial: FollowedTrial) -> dict[str, str]:
    value, left, epoch = sweep.objective(trial), trial.run.seconds_left, trial.run.epoch
    cells = {"trial": str(trial.trial.number), "state": trial.status}
    cells[sweep.record.objective.removeprefix("validation/")] = "-" if value is None else _objective(sweep, value)
    cells |= {"epoch": "-" if epoch is None else f"{epoch:.2f}", "left": "-" if left is None else duration(left)}
    cells |= {printable(key): _value(setting) for key, setting in _short(trial.trial.settings).items()}
    if trial.trial.fold is not None:
        cells["fold"] = str(trial.trial.fold)
    if len(sweep.record.seeds) > 1:
        cells["seed"] = str(trial.trial.seed)
    return cells


def _objective(sweep: FollowedSweep, value: float) -> str:
    return f"{value:.2%}" if sweep.record.objective == "validation/accuracy" else loss_text(value)


def _short(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the last parts of their keys, as far as these differ."""
    names = [key.rpartition(".")[2] for key in settings]
    return {
        (name if names.count(name) == 1 else key): value
        for name, (key, value) in zip(names, settings.items(), strict=True)
    }


def _value(setting: object) -> str:
    text = printable(f"{setting:.4g}" if isinstance(setting, float) else str(setting))
    return text if len(text) <= MOST_VALUE_COLUMNS else f"{text[: MOST_VALUE_COLUMNS - 1]}…"
