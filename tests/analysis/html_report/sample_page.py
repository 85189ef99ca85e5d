"""Pages to look at."""

from __future__ import annotations

from pathlib import Path

from partrain.interface.command_line import main
from tests.sample_runs import evaluation, rows_of_a_training, write_json, write_rows, write_run

HOSTILE = "<script>window.hurt=1<🙂><img src=x onerror=window.hurt=2>\"'&amp;"


def write_sample_page(folder: Path) -> Path:
    """Write a page of three runs: one has a hostile name, one is unfinished, with values that are not finite."""
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


def write_page_of_groups(folder: Path) -> Path:
    """Write a page of two seeds of two learning rates, and of a run of its own.

    The first has gradient norms; the last has no epochs, and a loss of 0 in its first half.
    """
    runs = [write_run(folder / f"{lr}-{seed}", seed=seed, lr=lr) for lr in (0.01, 0.02) for seed in range(2)]
    runs.append(write_run(folder / "alone", lr=0.03))
    losses = [0.0] * 20 + [0.5] * 20
    write_rows(runs[-1], [{"step": k, "examples": 32 * k, "train/loss": loss} for k, loss in enumerate(losses, 1)])
    rows = rows_of_a_training(40, 0, 0.01, 0.98)
    norm = {"train/gradient_norm/mean": 2.0}
    write_rows(runs[0], [row | norm if "train/loss" in row else row for row in rows])
    assert main(["compare", *map(str, runs), "--html", str(folder / "page.html"), "-q"]) == 0
    return folder / "page.html"
