"""How a batch is cut: into tiles, which depend on the configuration alone, and these into shards for workers."""

from __future__ import annotations

import itertools


def num_tiles(num_examples: int, tile: int) -> int:
    """Return how many tiles of `tile` examples hold `num_examples`; the last one may be smaller."""
    return -(-num_examples // tile)


def cut_into_shards(num_examples: int, tile: int, num_shards: int) -> list[tuple[int, int]]:
    """Cut a batch between tiles into at most `num_shards` runs of nearly equal numbers of tiles.

    Returns
    -------
    The runs as (first, last) examples of the batch, `last` excluded, in order; none of them empty.
    """
    tiles = num_tiles(num_examples, tile)
    cuts = [k * tiles // num_shards for k in range(num_shards + 1)]
    return [(first * tile, min(last * tile, num_examples)) for first, last in itertools.pairwise(cuts) if first < last]
