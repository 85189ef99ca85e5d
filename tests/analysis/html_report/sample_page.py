"""A page to look at: of three runs, one with a hostile name, one unfinished with values that are not finite."""

from __future__ import annotations

from pathlib import Path

from partrain.interface.command_line import main
from tests.sample_runs import evaluation, write_json, write_run

HOSTILE = "<script>window.hurt=1<🙂><img src=x onerror=window.hurt=2>\"'&amp;"


def write_sample_page(folder: Path) -> Path:
    """Write the runs and their page into a directory; return the page's path."""
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
