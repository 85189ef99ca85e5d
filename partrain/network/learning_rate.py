"""The schedule of the learning rate.

Sources: Loshchilov, Hutter, "SGDR", arXiv 1608.03983 (cosine, restarts); Smith, Topin, "Super-convergence", arXiv
1708.07120 (one cycle), in the form of PyTorch's OneCycleLR.
"""

from __future__ import annotations

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.kernels.elementary import cos_sin_pi, power


def learning_rate(step: int, optimizer: Optimizer, schedule: Schedule, reduced: float | None = None) -> float:
    """Return the learning rate of `step`, counted from 1.

    It rises linearly to `optimizer.lr` during the first `warmup_steps`; then it follows the schedule.

    Parameters
    ----------
    reduced : `plateau`: what reductions have left of `optimizer.lr`; None: there was no reduction.
    """
    lr = optimizer.lr if reduced is None else reduced
    if step <= schedule.warmup_steps:
        return lr * step / schedule.warmup_steps
    match schedule.name:
        case "constant" | "plateau":
            return lr
        case "step":
            return lr * power(schedule.factor, (step - 1) // schedule.every_steps)
        case "one_cycle":
            return _one_cycle(step, lr, schedule)
        case "warm_restarts":
            return _along_cosine(lr, schedule.final_lr, _progress_of_period(step, schedule))
    assert schedule.decay_steps is not None
    if step > schedule.decay_steps:
        return schedule.final_lr
    progress = (step - 1 - schedule.warmup_steps) / (schedule.decay_steps - schedule.warmup_steps)
    if schedule.name == "linear":
        return lr + (schedule.final_lr - lr) * progress
    return _along_cosine(lr, schedule.final_lr, progress)


def _along_cosine(first: float, last: float, progress: float) -> float:
    """Return the rate between `first` and `last`, along half a cosine."""
    cosine: float = cos_sin_pi(progress)[0]
    return last + (first - last) * (1 + cosine) / 2


def _one_cycle(step: int, lr: float, schedule: Schedule) -> float:
    """Return the rate of a cycle that rises to `lr` and then falls, both along half a cosine."""
    assert schedule.decay_steps is not None
    first = lr / schedule.div_factor
    last = first / schedule.final_div_factor
    place, end = step - 1, schedule.decay_steps - 1
    peak = schedule.pct_start * schedule.decay_steps - 1
    if place >= end:
        return last if end > peak or place > end else lr
    if place < peak:
        return _along_cosine(first, lr, place / peak)
    return _along_cosine(lr, last, (place - peak) / (end - peak))


def _progress_of_period(step: int, schedule: Schedule) -> float:
    """Return how much of its period has passed before a step."""
    place, period = step - 1 - schedule.warmup_steps, schedule.period_steps
    if schedule.period_factor == 1:
        return place % period / period
    while place >= period:
        place -= period
        period *= schedule.period_factor
    return place / period


def schedule_problem(
    optimizer: Optimizer, schedule: Schedule, num_steps: int, num_evaluations: int = 2**31
) -> str | None:
    """Return what a user hardly wants of a schedule in a training; None if there is nothing to say.

    Parameters
    ----------
    num_steps, num_evaluations : the steps of the training, and its evaluations on the validation examples.
    """
    warmup_steps, decay_steps = schedule.warmup_steps, schedule.decay_steps
    if warmup_steps > num_steps:
        return (
            f"training.schedule.warmup_steps: the warm-up of {warmup_steps:,} steps is longer than the training of "
            f"{num_steps:,} steps: the learning rate only reaches {learning_rate(num_steps, optimizer, schedule):.3g}, "
            f"not {optimizer.lr:g}"
        )
    match schedule.name:
        case "cosine" | "linear" if decay_steps is not None and decay_steps <= warmup_steps < num_steps:
            curve = "cosine" if schedule.name == "cosine" else "line"
            return (
                f"training.schedule.decay_steps: the {curve} would end at step {decay_steps:,}, but the warm-up takes "
                f"{warmup_steps:,} steps: after it, the learning rate is final_lr, {schedule.final_lr:g}, at once"
            )
        case "one_cycle" if decay_steps is not None and schedule.pct_start * decay_steps > num_steps:
            return (
                "training.schedule.pct_start: the learning rate rises until step "
                f"{schedule.pct_start * decay_steps:,.0f}, but the training ends at step {num_steps:,}"
            )
        case "one_cycle" if decay_steps is not None and decay_steps < num_steps:
            return (
                f"training.schedule.decay_steps: the cycle ends at step {decay_steps:,}; up to step {num_steps:,}, the "
                f"learning rate stays at {learning_rate(num_steps, optimizer, schedule):.3g}"
            )
        case "warm_restarts" if warmup_steps + schedule.period_steps >= num_steps:
            return (
                "training.schedule.period_steps: the first period ends at step "
                f"{warmup_steps + schedule.period_steps:,}, but the training ends at step "
                f"{num_steps:,}: the learning rate never restarts"
            )
        case "plateau" if num_evaluations < schedule.patience + 2:
            return (
                f"training.schedule.patience: with {num_evaluations:,} evaluations, the learning rate is never "
                f"reduced: the earliest reduction follows evaluation {schedule.patience + 2:,}"
            )
    return None
