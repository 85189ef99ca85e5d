from __future__ import annotations

from collections.abc import Sequence

import pytest

from partrain.analysis.html_report.document import POLICY
from partrain.analysis.html_report.sweep_page import sweep_page
from partrain.analysis.sweep_results import TrialResult, setting_results, short_keys
from partrain.analysis.sweep_table import describe_results
from partrain.store.sweep_directory import Axis, SweepRecord, Trial
from partrain.store.sweep_paths import trial_name

LR = "training.optimizer.lr"


def results_of(objective: str, values: Sequence[Sequence[float | None]]) -> tuple[SweepRecord, list[TrialResult]]:
    """Return a sweep of settings, and the values that their seeds have reached; None: the training has failed."""
    rates = [0.1 * place for place in range(1, len(values) + 1)]
    trials, results = [], []
    for place, (rate, of_seeds) in enumerate(zip(rates, values, strict=True), 1):
        for seed, value in enumerate(of_seeds):
            number = len(trials) + 1
            trial = Trial(number=number, run=trial_name(number), settings={LR: rate}, seed=seed, setting=place)
            trials.append(trial)
            results.append(TrialResult(trial, "failed" if value is None else "completed", 1.0, value, seconds=2.0))
    axes = [Axis(key=LR, values=rates)]
    record = SweepRecord.model_validate(
        {
            "kind": "sweep",
            "command_lines": [["partrain"]],
            "started": "2026",
            "config": {},
            "axes": axes,
            "seeds": list(range(len(values[0]))),
            "objective": objective,
            "num_trials": len(trials),
            "trials": trials,
        }
    )
    return record, results


def test_the_best_mean_comes_first_and_a_lucky_seed_alone_does_not_win() -> None:
    values = [[0.5, 0.6], [0.7, 0.6], [0.99, None]]
    accuracy = setting_results(*results_of("validation/accuracy", values))
    assert [result.setting for result in accuracy] == [2, 1, 3]
    assert accuracy[0].mean == pytest.approx(0.65)
    loss = setting_results(*results_of("validation/loss", values))
    assert [result.setting for result in loss] == [1, 2, 3]


def test_the_table_shows_the_interval_of_the_mean() -> None:
    text = describe_results(*results_of("validation/accuracy", [[0.97, 0.98, 0.99], [0.5, 0.5, 0.5]]))
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["lr", "validation/accuracy", "seeds", "time", "runs"]
    assert rows[1][:5] == ["0.1", "98.00%", "±", "2.48", "3"]  # 4.303 * 0.01 / sqrt(3)
    assert "±: half of the 95% confidence interval of the mean" in text


def test_short_keys_are_clear() -> None:
    keys = [LR, "training.schedule.name", "network.0.conv.filters", "network.2.conv.filters", "seed"]
    assert list(short_keys(keys).values()) == ["lr", "schedule.name", "0.conv.filters", "2.conv.filters", "seed"]


def test_the_page_is_one_file_with_all_settings_and_trainings() -> None:
    record, results = results_of("validation/accuracy", [[0.5, 0.6], [0.7, None]])
    text = sweep_page("<b>sweep", record, results, "plotly")
    assert POLICY in text
    assert "src=" not in text
    assert "href=" not in text
    assert "<b>sweep" not in text
    assert "Sweep &lt;b&gt;sweep" in text
    assert "3 of 4 trainings are complete" in text
    assert all(trial.run in text for trial in record.trials)
    assert "70.00%" in text
