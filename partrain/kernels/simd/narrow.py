"""Rows of fewer numbers than a vector has lanes."""

from __future__ import annotations

from partrain.kernels.compiler.flags import inlined

from .vectors import LANES, element, load, store, store_number


@inlined
def copy_narrow(source, width, target, start, count):
    """Copy `count` groups of `width` numbers out of groups of LANES; each store overwrites the surplus of the last."""
    whole = max(0, count - LANES)
    for t in range(whole):
        store(target, start + t * width, load(source, t * LANES))
    for t in range(whole, count):
        for lane in range(width):
            store_number(target, start + t * width + lane, element(source, t * LANES + lane))
