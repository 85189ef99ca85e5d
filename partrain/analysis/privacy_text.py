"""What a run's privacy is, as every command says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def describe_privacy(privacy: Mapping[str, Any]) -> str:
    """Return the words for what a run or a checkpoint records under `privacy`."""
    text = f"epsilon {privacy['epsilon']:.4g} at delta {privacy['delta']:g}"
    return text if privacy["secret_noise"] else f"NOT private, for the noise is seeded; else {text}"


def usable_privacy(content: object) -> dict[str, Any] | None:
    """Return what a file records under `privacy`, if it is what this program writes; else None."""
    if not isinstance(content, dict):
        return None
    numbers = [content.get(name) for name in ("epsilon", "delta", "noise_multiplier", "sampling_rate")]
    is_whole = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    return content if is_whole and isinstance(content.get("secret_noise"), bool) else None
