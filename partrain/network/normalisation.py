"""Normalises images for the network: (pixel - mean) / std of their channel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the pixels of each channel, in the units of the images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
