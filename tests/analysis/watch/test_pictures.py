"""The pictures of runs and sweeps fit into any terminal, and print nothing that it cannot show."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from partrain.analysis.watch.followed_run import FollowedRun
from partrain.analysis.watch.followed_sweep import FollowedSweep
from partrain.store.sweep_directory import SweepDirectory, SweepRecord, Trial
from partrain.store.sweep_paths import trial_name
from partrain.system.terminal_text import num_columns
from tests.sample_runs import write_run

rich_console = pytest.importorskip("rich.console")
charts = pytest.importorskip("partrain.analysis.watch.charts")
run_picture = pytest.importorskip("partrain.analysis.watch.run_picture")
sweep_picture = pytest.importorskip("partrain.analysis.watch.sweep_picture")

LOGGED = {"horizon": {"epochs": 2, "max_steps": None}, "logged": {"last_step": 80}}
# Moves the cursor, sets the title, reverses text, and looks like rich's markup.
HOSTILE = "a\033[2J\x9b2Jb\033]0;title\a\u202e[bold]c😀字"
SIZES = [(80, 24), (40, 30), (120, 40), (200, 60), (80, 9), (20, 50), (10, 10), (3, 3), (300, 5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch")
    write_run(folder / "run", status="running", **LOGGED)
    write_run(folder / "failed", status="failed", cause=HOSTILE, **LOGGED)
    write_run(folder / "completed", num_steps=5000)
    write_run(folder / HOSTILE, status="running", **LOGGED)
    write_run(folder / "new", status="running", num_steps=0, **LOGGED)
    trials = [
        Trial(
            number=number,
            run=trial_name(number),
            settings={"training.optimizer.lr": 0.01 * number, HOSTILE: HOSTILE},
            seed=number % 2,
            setting=number,
        )
        for number in range(1, 13)
    ]
    sweep = SweepDirectory(folder / "sweep")
    for number, status in ((1, "completed"), (2, "failed"), (3, "running"), (4, "running"), (5, "interrupted")):
        write_run(folder / "sweep" / trial_name(number), status=status, final_accuracy=0.9 + number / 100, **LOGGED)
    record = SweepRecord(
        kind="sweep",
        command_lines=[["partrain", "sweep"]],
        started="2026-11-28T03:00:00.000+00:00",
        config={},
        axes=[],
        seeds=[0, 1],
        objective="validation/accuracy",
        num_trials=12,
        trials=trials,
    )
    sweep.write(record)
    return folder


def picture(path: Path, columns: int, lines: int | None, *, is_ascii: bool = False, has_colours: bool = False) -> str:
    look = charts.Look(has_colours=has_colours, is_ascii=is_ascii)
    followed = FollowedSweep(path) if path.name == "sweep" else FollowedRun(path)
    followed.poll()
    draw = sweep_picture.draw_sweep if path.name == "sweep" else run_picture.draw_run
    console = rich_console.Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="ascii" if is_ascii else "utf-8"),
        width=columns,
        height=lines or 100,
        force_terminal=has_colours,
        color_system="standard" if has_colours else None,
    )
    with console.capture() as capture:
        console.print(draw(followed, columns, lines, look))
    return str(capture.get())


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[tuple[int, int, str]]:
    """All pictures in all sizes, with the columns and lines that they may have."""
    return [(*size, picture(path, *size)) for path in sorted(folder.iterdir()) for size in SIZES]


def test_no_line_is_too_wide_and_no_picture_is_too_high(pictures: list[tuple[int, int, str]]) -> None:
    for columns, lines, text in pictures:
        found = text.splitlines()
        assert max(num_columns(line.rstrip()) for line in found) <= columns, text
        if columns >= 40 and lines >= 9:
            assert len(found) <= lines, text


def test_nothing_controls_the_terminal(folder: Path, pictures: list[tuple[int, int, str]]) -> None:
    for _, _, text in pictures:
        assert all(character.isprintable() or character == "\n" for character in text)
    coloured = picture(folder / HOSTILE, 80, 24, has_colours=True)
    assert "\033[2J" not in coloured
    assert "[bold]c" in coloured  # is no markup
    assert "\033[" in coloured


def test_ascii_is_enough(folder: Path) -> None:
    for path in folder.iterdir():
        picture(path, 80, 24, is_ascii=True).encode("ascii")


def test_a_run_shows_how_far_it_is_and_its_curves(folder: Path) -> None:
    text = picture(folder / "run", 80, 24)
    for part in ("running", "step 40/80", "left", "2 workers", "best validation 98.00%", "last news", "loss  training"):
        assert part in text
    assert text.count("╭") == 2
    wide, narrow, short = (picture(folder / "run", *size) for size in ((120, 24), (40, 40), (80, 14)))
    assert wide.splitlines()[4].count("╭") == 2  # side by side
    assert narrow.count("╭") == 2
    assert short.count("╭") == 1


def test_the_end_of_a_run_is_told(folder: Path) -> None:
    assert "test 98.00%" in picture(folder / "completed", 80, 24)
    assert "news" not in picture(folder / "completed", 80, 24)
    assert "a\ufffd[2J" in picture(folder / "failed", 80, 24)
    assert "no metrics yet" in picture(folder / "new", 80, 24)


def test_a_sweep_shows_its_trials_and_the_best_so_far(folder: Path) -> None:
    text = picture(folder / "sweep", 80, 40)
    for part in ("12 trials", "1 completed", "2 running", "7 waiting", "left", "best 91.00%: trial 1", "lr=0.01"):
        assert part in text
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if len(row) > 1 and row[1] in run_picture.STATUS_STYLES | {"waiting": ""}] == [
        str(number) for number in range(1, 13)
    ]
    assert "validation/accuracy  trial 1" in text


def test_a_sweep_in_a_narrow_pane_shows_the_trials_that_train_first(folder: Path) -> None:
    lines = picture(folder / "sweep", 40, 20).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("trial  state"))
    assert "running" in lines[first + 1]
    assert "accuracy" in lines[first]
    assert any(line.startswith("and ") for line in lines)
