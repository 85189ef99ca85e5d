"""The record of differential privacy in a run: its check, and the sentence that all commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LARGEST = 2.0**128


def describe_privacy(privacy: Mapping[str, Any]) -> str:
    """Return what a run's or a checkpoint's record of privacy says, as text.

    Parameters
    ----------
    privacy : a record as `usable_privacy` returns it.
    """
    text = f"epsilon {privacy['epsilon']:.4g} at delta {privacy['delta']:g}"
    return text if privacy["secret_noise"] else f"NOT private, because the noise is seeded; with secret noise: {text}"


def usable_privacy(content: object) -> dict[str, Any] | None:
    """Return a record of privacy that was read from a file; None if it is not one that this program writes."""
    if not isinstance(content, dict):
        return None
    numbers = [content.get(name) for name in ("epsilon", "delta", "noise_multiplier", "sampling_rate")]
    # Not math.isfinite, which fails for integers that exceed every float.
    is_complete = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= _LARGEST for n in numbers)
    return content if is_complete and isinstance(content.get("secret_noise"), bool) else None
