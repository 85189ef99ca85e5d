from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from partrain.analysis.comparison.comparison import compare, label
from partrain.analysis.comparison.significance import mcnemar_log10_p
from partrain.analysis.comparison.text import describe, format_difference
from partrain.analysis.logged_run import LoggedRun
from partrain.store.run_directory import RunDirectory
from tests.program import ROOT, Result
from tests.sample_runs import evaluation, rows_of_a_training, write_json, write_rows, write_run


def facts_of(*paths: Path, everything: bool = False) -> dict[str, Any]:
    return compare([LoggedRun.open(path) for path in paths], everything=everything)


def values_of(facts: dict[str, Any], key: str) -> list[Any]:
    return next((result["values"] for result in facts["results"] if result["key"] == key), [])


def best_of(facts: dict[str, Any], key: str) -> list[int]:
    return next(result["best"] for result in facts["results"] if result["key"] == key)


def write_evaluated(path: Path, predictions: Sequence[int], **changes: Any) -> Path:
    labels = changes.pop("labels", [0] * len(predictions))
    run = write_run(path, **changes)
    write_json(run / "evaluation-test.json", evaluation(labels, predictions))
    return run


def test_only_differences_are_shown_unless_everything_is_requested(tmp_path: Path) -> None:
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b", lr=0.1, workers=8)
    facts = facts_of(*runs)
    assert facts["configuration"] == [{"key": "training.optimizer.lr", "values": [0.01, 0.1]}]
    assert facts["surroundings"] == [{"key": "workers", "values": [2, 8]}]
    keys = [line["key"] for line in facts_of(*runs, everything=True)["configuration"]]
    assert {"seed", "network.1.dense.units", "training.epochs"} <= set(keys)


def test_number_of_ranks_is_part_of_the_environment(tmp_path: Path) -> None:
    ranks = [{"host": "a", "workers": 4}, {"host": "b", "workers": 4}]
    facts = facts_of(write_run(tmp_path / "a"), write_run(tmp_path / "b", ranks=ranks))
    assert facts["surroundings"] == [{"key": "ranks", "values": [None, 2]}]


def test_best_values_are_those_of_finished_runs(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", final_accuracy=0.97),
        write_run(tmp_path / "b", final_accuracy=0.985),
        write_run(tmp_path / "c", final_accuracy=0.999, status="interrupted", num_steps=10),
    ]
    facts = facts_of(*runs)
    assert values_of(facts, "test_accuracy") == [0.97, 0.985, None]
    assert best_of(facts, "final_validation_accuracy") == [1]
    assert best_of(facts, "total_seconds") == []
    assert best_of(facts, "steps") == []
    notes = "\n".join(facts["notes"])
    assert "not finished: C (interrupted)" in notes
    assert "different lengths" in notes


def test_first_evaluation_that_reaches_an_accuracy_is_found(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)
    accuracies = {10: 0.9, 20: 0.97, 30: 0.96, 40: 0.985}
    write_rows(
        a, [{"step": s, "examples": s * 32, "time_s": s / 4, "validation/accuracy": v} for s, v in accuracies.items()]
    )
    facts = facts_of(a, b)
    for key, expected in (("steps_to_0.97", 20), ("examples_to_0.98", 1280), ("seconds_to_0.985", 10)):
        assert values_of(facts, key)[0] == expected
    assert values_of(facts, "steps_to_0.99") == []
    assert values_of(facts, "steps_between_evaluations") == [10, 10]
    assert "to step" not in describe(facts)


def test_equal_digests_mean_equal_parameters_and_otherwise_the_first_different_loss_is_named(tmp_path: Path) -> None:
    a, b, c = (write_run(tmp_path / name) for name in "abc")
    write_json(c / "summary.json", {"format": 1, "parameters_sha256": "other"})
    rows = rows_of_a_training(40, 0, 0.01, 0.98)
    rows[25]["train/loss"] += 1e-9
    write_rows(c, rows)
    same, other = facts_of(a, b, c)["parameters"]
    assert same["same_bits"] is True
    assert other["same_bits"] is False
    assert other["losses_differ_at"]["step"] == rows[25]["step"]
    text = describe(facts_of(a, b, c))
    assert "A and B: bit for bit the same" in text
    assert f"A and C: different; the logs first differ at step {rows[25]['step']}: train/loss is" in text


def test_equal_losses_do_not_prove_equal_parameters(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", status="interrupted", num_steps=40)
    assert facts_of(a, b)["parameters"] == [
        {
            "run": 1,
            "same_bits": None,
            "losses_differ_at": None,
            "losses_equal_until": 40,
            "digests_differ_at": None,
            "digests_equal_until": None,
            "tensors_differ_at": None,
        }
    ]


@pytest.mark.parametrize(
    ("others", "same_bits", "sentence"),
    [
        (["a", "b", "c"], None, "bit for bit the same up to step 60, unknown after it"),
        (["a", "b", "x"], None, "bit for bit the same up to step 40, different at step 60"),
        (["x", "y", "z"], None, "different at step 20"),
        (["a", "b", "c"], False, "bit for bit the same up to step 60, different at the end"),
    ],
)
def test_logged_digests_say_until_when_the_parameters_were_the_same(
    tmp_path: Path, others: list[str], same_bits: bool | None, sentence: str
) -> None:
    runs = []
    for name, digests in (("first", ["a", "b", "c"]), ("second", others)):
        run = write_run(tmp_path / name)
        rows = rows_of_a_training(80, 0, 0.01, 0.98)
        rows += [{"step": step, "parameters_sha256": d} for step, d in zip((20, 40, 60), digests, strict=True)]
        write_rows(run, sorted(rows, key=lambda row: row["step"]))
        end = {} if same_bits is None else {"parameters_sha256": name}
        write_json(run / "summary.json", {"format": 1} | end)
        runs.append(run)
    facts = facts_of(*runs)
    assert facts["parameters"][0]["same_bits"] is same_bits
    assert f"A and B: {sentence}; all losses that both logged are equal" in describe(facts)


def test_runs_that_differ_only_in_the_seed_are_grouped(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{lr}-{seed}", seed=seed, lr=lr, final_accuracy=0.95 + lr, workers=seed)
        for lr in (0.01, 0.02)
        for seed in range(3)
    ]
    again = write_run(tmp_path / "again", seed=2, final_accuracy=0.96, config_changes={"name": "again"})
    other_data = write_run(tmp_path / "other", seed=5, data={"digest": "d2"})
    facts = facts_of(*runs, again, other_data)
    assert [(group["runs"], group["counted"], group["n"]) for group in facts["groups"]] == [
        ([0, 1, 2, 6], [0, 1, 2], 3),
        ([3, 4, 5], [3, 4, 5], 3),
    ]
    spread = facts["groups"][0]["measures"]["test_accuracy"]
    assert spread["mean"] == pytest.approx(0.961)
    assert spread["standard_deviation"] == pytest.approx(stdev([0.96, 0.961, 0.962]))
    (welch,) = (test for test in facts["welch"] if test["measure"] == "test_accuracy")
    assert welch["difference"] == pytest.approx(0.01)
    assert welch["is_real"]
    notes = "\n".join(facts["notes"])
    assert "G has the same seed (2) as another run of its group and is not counted" in notes
    assert "different data" in notes
    assert re.search(r"test accuracy +\+1\.00 points +\+0\.77 to \+1\.23 +0.0\d+ +significant", describe(facts))


def test_significance_is_corrected_for_all_comparisons_and_the_seeds_that_would_decide_are_named(
    tmp_path: Path, call_partrain: Callable[..., Result]
) -> None:
    accuracies = {0.01: (0.960, 0.965, 0.970), 0.02: (0.968, 0.975, 0.982), 0.03: (0.90, 0.905, 0.91)}
    runs = [
        write_run(tmp_path / f"{lr}-{seed}", seed=seed, lr=lr, final_accuracy=accuracy)
        for lr, of_seeds in accuracies.items()
        for seed, accuracy in enumerate(of_seeds)
    ]
    facts = facts_of(*runs)
    tests = {(test["groups"][1], test["measure"]): test for test in facts["welch"]}
    for test in tests.values():
        assert test["p"] <= test["corrected_p"] <= 1
        assert test["is_real"] == (test["corrected_p"] < 0.05)
    undecided, decided = tests[1, "test_accuracy"], tests[2, "test_accuracy"]
    assert decided["is_real"]
    assert (decided["seeds_needed"], decided["more_seeds"]) == (None, None)
    assert not undecided["is_real"]
    assert undecided["more_seeds"] == [undecided["seeds_needed"] - 3] * 2
    assert undecided["seeds_needed"] > 3
    text = describe(facts)
    assert f"corrected for {len(tests)} comparisons by Holm's method" in text
    row = rf"group 2 - group 1 +test accuracy +{undecided['seeds_needed']} +{undecided['more_seeds'][0]}\n"
    assert re.search(row, text)
    assert "(power) of 80%" in text
    assert call_partrain("compare", *runs, "--html", tmp_path / "page.html", "-q").exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert "Holm&#x27;s method" in page
    assert f'<td data-value="{undecided["seeds_needed"]}">{undecided["seeds_needed"]}</td>' in page


@pytest.mark.parametrize(
    ("kind", "numbers", "expected"),
    [
        ("rate", (-13072.4, -26165.7, 20.85), ("-13,072", "-26,166 to +21")),
        ("seconds", (23.131, -69.811, 116.07), ("+23.1 s", "-69.8 to +116.1")),
        ("loss", (-0.019368, -0.0434, 0.0046551), ("-0.01937", "-0.04340 to +0.00466")),
        ("loss", (9.99996, 1.0, 9.99996), ("+10.00", "+1.00 to +10.00")),
        ("loss", (0.0, 0.0, 0.0), ("+0", "+0 to +0")),
        ("loss", (1e-30, -1e-31, 1e-30), ("+1e-30", "-1e-31 to +1e-30")),
        ("accuracy", (0.0055, -0.0024, 0.01334), ("+0.55 points", "-0.24 to +1.33")),
    ],
)
def test_a_difference_and_its_interval_have_the_same_decimals(
    kind: str, numbers: tuple[float, float, float], expected: tuple[str, str]
) -> None:
    difference, *interval = numbers
    assert format_difference({"difference": difference, "interval": interval}, kind) == expected


def test_runs_that_differ_only_in_the_seed_are_not_tested_against_each_other(tmp_path: Path) -> None:
    a = write_evaluated(tmp_path / "a", [0] * 90 + [1] * 10)
    b = write_evaluated(tmp_path / "b", [1] * 90 + [0] * 10, seed=1)
    facts = facts_of(a, b)
    assert (len(facts["groups"]), facts["welch"], facts["mcnemar"]) == (1, [], [])


def test_a_p_value_that_no_float_can_hold_is_shown(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    a = write_evaluated(tmp_path / "a", [0] * 3000)
    b = write_evaluated(tmp_path / "b", [1] * 3000, lr=0.1)
    result = call_partrain("compare", a, b)
    assert "p = 1.63e-903, significant" in result.stdout
    (test,) = json.loads(call_partrain("compare", a, b, "--json").stdout)["mcnemar"]
    assert 0 < test["p"] < 1e-300
    assert test["log10_p"] == pytest.approx(-902.79, abs=0.01)


def test_without_scipy_the_intervals_are_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    runs = [write_run(tmp_path / f"{lr}-{seed}", seed=seed, lr=lr) for lr in (0.01, 0.02) for seed in range(2)]
    facts = facts_of(*runs)
    assert facts["welch"] == []
    assert any("partrain[report]" in note for note in facts["notes"])


def test_two_evaluated_runs_are_tested_on_their_predictions(tmp_path: Path) -> None:
    a = write_evaluated(tmp_path / "a", [0] * 90 + [1] * 10)
    b = write_evaluated(tmp_path / "b", [0] * 80 + [2] * 15 + [0] * 5, lr=0.1)
    facts = facts_of(a, b)
    (test,) = facts["mcnemar"]
    assert (test["only_first_right"], test["only_second_right"]) == (10, 5)
    assert test["p"] == test["corrected_p"] == pytest.approx(10 ** mcnemar_log10_p(10, 5))
    assert "only A is right on 10, only B on 5" in describe(facts)
    assert "not significant at the 5% level" in describe(facts)
    assert "two trained networks, not their settings" in describe(facts)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": [0, 0, 1]}, None),
        ({"confusion": [[1]]}, "confusion matrix"),
        ({"classes": 3}, "no list of class names"),
        ({"predictions": ["0"]}, "predictions are not a list"),
        ({"labels": None}, "labels are not a list"),
        ({"predictions": []}, "differ in number"),
        ({"recall": None}, "not have the recall"),
        ({"format": 99}, "newer partrain"),
    ],
)
def test_inconsistent_evaluation_is_not_used(tmp_path: Path, changes: dict[str, Any], problem: str | None) -> None:
    a, b = (write_evaluated(tmp_path / name, [0, 1, 0]) for name in "ab")
    write_json(b / "evaluation-test.json", evaluation([0, 0, 0], [0, 1, 0]) | changes)
    facts = facts_of(a, b)
    assert facts["mcnemar"] == []
    assert problem is None or problem in facts["runs"][1]["problems"][0]


def test_foreign_lines_torn_lines_and_non_finite_values_do_not_stop_a_comparison(
    call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", status="running")
    with open(b / "metrics.jsonl", "a") as file:
        file.write(
            '\n[1]\n{"step": "x"}\n{"step": 41, "train/loss": "NaN", "validation/loss": "-Infinity"}\n{"step": 4'
        )
    result = call_partrain("compare", a, b)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "NaN" in result.stdout
    assert "-∞" in result.stdout
    assert "B: metrics.jsonl: 3 lines are not metrics" in result.stdout
    as_json = json.loads(call_partrain("compare", a, b, "--json").stdout, parse_constant=pytest.fail)
    assert values_of(as_json, "final_train_loss")[1] is None


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"- 1", b"x: &x [*x]", b"x" * 2_000_000, None])
def test_damaged_configuration_is_reported_and_the_copy_in_the_record_is_used(
    tmp_path: Path, content: bytes | None
) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", lr=0.5)
    if content is None:
        (b / "config.yaml").unlink()
    else:
        (b / "config.yaml").write_bytes(content)
    facts = facts_of(a, b)
    assert "config.yaml" in facts["runs"][1]["problems"][0]
    assert {"key": "training.optimizer.lr", "values": [0.01, 0.5]} in facts["configuration"]


def test_aliases_cannot_make_a_configuration_grow_without_limit(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    lines = ["a0: &a0 {x: 1, y: 2}"] + [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 40)]
    (b / "config.yaml").write_text("\n".join(lines))
    assert "too many values" in facts_of(a, b)["runs"][1]["problems"][0]


def test_run_in_training_can_be_compared_and_is_marked(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", status="running")
    with RunDirectory.open(b).lock():
        result = call_partrain("compare", a, b)
    assert result.exit_code == 0
    assert "not finished: B (running)" in result.stdout


def test_mistakes_are_reported(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    a = write_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(a)
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ([a], "give two runs or more"),
        ([a, tmp_path / "link"], "are the same run"),
        ([a, a], "are the same run"),
        ([a, tmp_path / "empty"], "is not a run"),
        ([a, tmp_path / "aa"], "there is no such run"),
    ):
        result = call_partrain("compare", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_names_of_runs_are_found_and_cannot_control_the_terminal(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one\033[2J", started="2026-11-24T10:00:00+00:00")
    write_run(tmp_path / "runs" / "二", started="2026-11-24T11:00:00+00:00")
    result = call_partrain("compare", "last", "last~1")
    assert result.exit_code == 0
    assert "A  二" in result.stdout
    assert "\033" not in result.stdout


def test_wide_tables_are_split_to_fit_the_terminal_and_best_values_are_bold(tmp_path: Path) -> None:
    facts = facts_of(*(write_run(tmp_path / f"run-{seed}", seed=seed) for seed in range(12)))
    narrow = describe(facts, width=80, bold=True)
    assert "\033[1m99.10%*\033[0m" in narrow
    table_lines = [line for line in narrow.splitlines() if line.startswith(("test ", "final "))]
    assert len(table_lines) > 12
    assert max(map(len, table_lines)) <= 90  # with the codes of the bold ones
    assert "\033" not in describe(facts)


def test_no_numba_is_imported(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    program = (
        "import sys; from partrain.interface.command_line import main; code = main(sys.argv[1:]); "
        "sys.exit(code or any(name.split('.')[0] in ('numba', 'llvmlite') for name in sys.modules))"
    )
    command = [sys.executable, "-c", program, "compare", str(a), str(b)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, env=os.environ | {"NO_COLOR": "1"})
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_labels_continue_after_z() -> None:
    assert [label(place) for place in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]


def test_non_finite_values_are_never_the_best(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    write_rows(b, [{"step": 1, "train/loss": "NaN"}, {"step": 2, "train/loss": "Infinity"}])
    facts = facts_of(a, b)
    assert math.isinf(values_of(facts, "final_train_loss")[1])
    assert best_of(facts, "final_train_loss") == []
    assert values_of(facts, "best_train_loss")[1] is None
