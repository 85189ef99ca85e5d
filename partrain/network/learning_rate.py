"""The schedule of the learning rate.

Source of the cosine: Loshchilov, Hutter, "SGDR", arXiv 1608.03983.
"""

from __future__ import annotations

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.kernels.elementary import cos_sin_pi, power


def learning_rate(step: int, optimizer: Optimizer, schedule: Schedule) -> float:
    """Return the learning rate of `step`, counted from 1.

    It rises linearly to `optimizer.lr` during the first `warmup_steps`. Then it is constant, or is multiplied by
    `factor` after every `every_steps` steps, or falls along half a cosine to `final_lr` at step `decay_steps` and
    stays there.
    """
    if step <= schedule.warmup_steps:
        return optimizer.lr * step / schedule.warmup_steps
    if schedule.name == "constant":
        return optimizer.lr
    if schedule.name == "step":
        return optimizer.lr * power(schedule.factor, (step - 1) // schedule.every_steps)
    assert schedule.decay_steps is not None
    if step > schedule.decay_steps:
        return schedule.final_lr
    progress = (step - 1 - schedule.warmup_steps) / (schedule.decay_steps - schedule.warmup_steps)
    cosine: float = cos_sin_pi(progress)[0]
    return schedule.final_lr + (optimizer.lr - schedule.final_lr) * (1 + cosine) / 2


def schedule_problem(optimizer: Optimizer, schedule: Schedule, num_steps: int) -> str | None:
    """Return what a user hardly wants of a schedule in a training of `num_steps`; None if there is nothing to say."""
    warmup_steps, decay_steps = schedule.warmup_steps, schedule.decay_steps
    if warmup_steps > num_steps:
        return (
            f"training.schedule.warmup_steps: the warm-up of {warmup_steps:,} steps is longer than the training of "
            f"{num_steps:,} steps: the learning rate only reaches {learning_rate(num_steps, optimizer, schedule):.3g}, "
            f"not {optimizer.lr:g}"
        )
    if schedule.name == "cosine" and decay_steps is not None and decay_steps <= warmup_steps < num_steps:
        return (
            f"training.schedule.decay_steps: the cosine would end at step {decay_steps:,}, but the warm-up takes "
            f"{warmup_steps:,} steps: after it, the learning rate is final_lr, {schedule.final_lr:g}, at once"
        )
    return None
