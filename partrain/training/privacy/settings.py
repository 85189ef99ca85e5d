"""Settings of private training that depend on the number of training examples."""

from __future__ import annotations

import math
from collections.abc import Callable

from partrain.config.schema.training import Privacy, Training
from partrain.data.batches import steps_per_epoch
from partrain.errors import ConfigError
from partrain.training.privacy.accounting import Accountant, least_noise


def resolve_privacy(
    training: Training, num_train: int, warn: Callable[[str], None]
) -> tuple[Privacy, Accountant] | tuple[None, None]:
    """Return the privacy settings with noise multiplier and maximum batch size filled in, and what computes epsilon.

    Raises
    ------
    ConfigError
        The target cannot be reached, a batch would be larger than the data, or dp-accounting is not installed.
    """
    privacy, batch_size = training.privacy, training.batch_size
    if privacy is None:
        return None, None
    if batch_size > num_train:
        raise ConfigError(
            f"training.batch_size: {batch_size:,} is larger than the number of training examples, {num_train:,}; "
            "training.privacy does not allow this"
        )
    if privacy.delta >= 1 / num_train:
        warn(
            f"training.privacy.delta: {privacy.delta:g} is not below 1 / {num_train:,}, with {num_train:,} training "
            "examples: with such a delta, even publishing whole examples could count as private"
        )
    rate, noise, target = batch_size / num_train, privacy.noise_multiplier, privacy.target_epsilon
    steps = training.epochs * steps_per_epoch(num_train, batch_size)
    steps = steps if training.max_steps is None else min(steps, training.max_steps)
    if noise is None:
        assert target is not None
        noise = least_noise(rate, steps, privacy.delta, target)
    accountant = Accountant(rate, noise, privacy.delta)
    if target is not None and (least := accountant.epsilon(1)) > target:
        raise ConfigError(
            f"training.privacy.target_epsilon: with the noise multiplier {noise:g} the first step already makes "
            f"epsilon {least:.3g}, which exceeds {target:g}; raise the noise multiplier or the target"
        )
    max_batch_size = privacy.max_batch_size or default_max_batch_size(batch_size, training.tile)
    return privacy.model_copy(update={"noise_multiplier": noise, "max_batch_size": max_batch_size}), accountant


def default_max_batch_size(batch_size: int, tile: int) -> int:
    """Return the number of examples computed at once: the expected size plus six deviations, in whole tiles."""
    return tile * math.ceil((batch_size + 6 * math.sqrt(batch_size)) / tile)


NOT_PRIVATE = (
    "training.privacy.source is seeded: batches and noise can be computed from the seed, so this run is NOT private, "
    "regardless of the epsilon that it reports; the default is source: secure"
)


def is_seeded(training: Training) -> bool:
    """Return whether the training adds noise that can be computed from the seed."""
    return training.privacy is not None and training.privacy.source == "seeded"


def describe_private_training(
    training: Training, num_steps: int, budget_steps: int | None, accountant: Accountant
) -> list[str]:
    """Return the lines that describe a private training at its start; the target epsilon ends it at `budget_steps`."""
    last_step, when = num_steps, f"all {num_steps:,} steps"
    if budget_steps is not None and budget_steps < num_steps:
        last_step, when = budget_steps, f"step {budget_steps:,}, at which the target epsilon ends the training"
    return [
        f"private training: each example is in a batch with probability {accountant.sampling_rate:.4g}, gradients are "
        f"clipped to {training.per_example.clip:g}, noise multiplier {accountant.noise_multiplier:g}: epsilon "
        f"{accountant.epsilon(last_step):.4g} at delta {accountant.delta:g} after {when}",
        "not protected: logged losses and norms of batches, and the validation examples",
    ]
