"""Evaluates the best setting of a sweep on the test examples, which no other setting has seen."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

from partrain.analysis.evaluation import evaluate_run
from partrain.analysis.plots.run_plots import load_drawing, write_plots
from partrain.analysis.sweep_results import describe_settings_of, describe_trial, setting_results
from partrain.data.dataset import Dataset
from partrain.data.split_name import SplitName
from partrain.store.run_directory import RunDirectory, reporting_write_errors
from partrain.sweeps.sweep import Sweep, SweepSession
from partrain.system.messages import Messages
from partrain.system.signals import Interruption


def evaluate_winner(sweep: Sweep, session: SweepSession) -> str:
    """Evaluate the trainings of the best setting on the test examples; return a line that says how good they are.

    Raises
    ------
    UserError, Interrupted
        As `evaluate_run`.
    """
    settings = setting_results(sweep.record, sweep.results)
    if not settings:
        return ""
    best = settings[0]
    if session.config_of(best.trials[0].trial).logging.plots:
        load_drawing(Messages(quiet=True))
    sweep.work_on([each.trial for each in best.trials if each.test_accuracy is None], _evaluate)
    accuracies = [result.test_accuracy for each in best.trials if (result := sweep.look(each.trial)).test_accuracy]
    if not accuracies:
        return ""
    mean = f"test accuracy {fmean(accuracies):.2%}"
    if len(accuracies) == 1:
        return f"best: {describe_trial(sweep.record, best.trials[0].trial)}, {mean}"
    name = f"best: {text}, " if (text := describe_settings_of(sweep.record, best.settings)) else ""
    return f"{name}{mean} ± {100 * stdev(accuracies):.2f} (mean ± standard deviation of {len(accuracies)} seeds)"


def _evaluate(path: Path, dataset: Dataset | None, messages: Messages, interruption: Interruption) -> None:
    """Evaluate a completed run on the test examples, as a single training does at its end.

    Raises
    ------
    UserError, Interrupted
        As `evaluate_run`.

    Side effects
    ------------
    Writes the result into the run's summary, and its evaluation and plots.
    """
    run = RunDirectory.open(path)
    evaluated = evaluate_run(path, SplitName.TEST, "last", 0, messages, interruption, dataset)
    report, trained = evaluated.report, evaluated.trained
    with run.lock(), reporting_write_errors(run):
        test = {"loss": report["loss"], "accuracy": report["accuracy"]}
        run.write_summary(run.read_summary() | {"test": test})
    if trained.config.logging.plots:
        write_plots(run, trained.network, trained.parameters, evaluated.examples.images, report, messages)
