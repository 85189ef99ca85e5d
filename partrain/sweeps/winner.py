"""Evaluates the best setting of a sweep on the test examples, which no other setting has seen."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

from partrain.analysis.evaluation import evaluate_run
from partrain.analysis.plots.run_plots import write_plots
from partrain.analysis.sweep_results import describe_trial, setting_results
from partrain.data.split_name import SplitName
from partrain.store.run_directory import RunDirectory, reporting_write_errors
from partrain.sweeps.sweep import Sweep, SweepSession
from partrain.system.messages import Messages


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
    accuracies = [_evaluate_on_test(sweep.directory.trial_path(each.trial), session) for each in best.trials]
    for each in best.trials:
        sweep.look(each.trial)
    name = describe_trial(sweep.record, best.trials[0].trial)
    if len(accuracies) == 1:
        return f"best: {name}, test accuracy {accuracies[0]:.2%}"
    return (
        f"best: {name} and {len(accuracies) - 1} more seeds, test accuracy {fmean(accuracies):.2%} ± "
        f"{100 * stdev(accuracies):.2f} (mean ± standard deviation)"
    )


def _evaluate_on_test(path: Path, session: SweepSession) -> float:
    """Evaluate a completed run on the test examples, as a single training does at its end; return the accuracy.

    If that was done before, nothing is computed.

    Raises
    ------
    UserError, Interrupted
        As `evaluate_run`.

    Side effects
    ------------
    Writes the result into the run's summary, and its evaluation and plots.
    """
    run = RunDirectory.open(path)
    test = run.read_summary().get("test")
    if isinstance(test, dict) and isinstance(test.get("accuracy"), float):
        return float(test["accuracy"])
    quiet = Messages(quiet=True)
    dataset = session.preparation.dataset
    evaluated = evaluate_run(path, SplitName.TEST, "last", 0, quiet, session.interruption, dataset)
    report, trained = evaluated.report, evaluated.trained
    with run.lock(), reporting_write_errors(run):
        test = {"loss": report["loss"], "accuracy": report["accuracy"]}
        run.write_summary(run.read_summary() | {"test": test})
    if trained.config.logging.plots:
        write_plots(run, trained.network, trained.parameters, evaluated.examples.images, report, quiet)
    return float(report["accuracy"])
