"""How a batch is cut: into blocks of tiles, and the tiles into shards for workers and into shares for ranks.

A tile is the unit of gradient work: a fixed number of consecutive examples, set by `training.tile`. The sums of a
block's tiles are added one after the other, those of blocks in a tree (kernels.block_tree). Both depend on the
configuration alone, never on the number of workers or ranks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

Range = tuple[int, int]  # first, and one past the last

# Examples in a block, or a few more, so that it has whole tiles. With fewer, sums wait in memory more often.
EXAMPLES_PER_BLOCK = 32


@dataclass(frozen=True)
class Tiling:
    """Cuts ranges of examples at the boundaries of tiles.

    Parameters
    ----------
    tile_size : examples per tile; the last tile of a batch may be smaller.
    block : examples per block, a multiple of `tile_size`; None: the least multiple from EXAMPLES_PER_BLOCK on.
    """

    tile_size: int
    block: int | None = None

    @property
    def block_size(self) -> int:
        """The number of examples per block; the last block of a batch may be smaller."""
        return self.block or self.num_tiles(EXAMPLES_PER_BLOCK) * self.tile_size

    def blocks(self, num_examples: int) -> list[Range]:
        """Return the examples of each block of a batch."""
        return [(k, min(k + self.block_size, num_examples)) for k in range(0, num_examples, self.block_size)]

    def num_tiles(self, num_examples: int) -> int:
        """Return the number of tiles that hold `num_examples`."""
        return -(-num_examples // self.tile_size)

    def tile_range(self, first: int, last: int) -> slice:
        """Return the numbers of the tiles that hold the examples `first` to `last` - 1."""
        return slice(first // self.tile_size, self.num_tiles(last))

    def shards(self, first: int, last: int, num_shards: int) -> list[Range]:
        """Cut the examples `first` to `last` - 1 into at most `num_shards` shards of nearly equal numbers of tiles.

        Parameters
        ----------
        first : the first example of a tile.

        Returns
        -------
        The shards, in order; none is empty.
        """
        return [shard for shard in self._cuts(first, last, num_shards) if shard[0] < shard[1]]

    def rank_share(self, first: int, last: int, rank: int, num_ranks: int) -> Range:
        """Return the examples that `rank` computes of `first` to `last` - 1; the range may be empty."""
        return self._cuts(first, last, num_ranks)[rank]

    def chunks(self, first: int, last: int, tiles_per_chunk: int) -> list[Range]:
        """Cut the examples `first` to `last` - 1 into chunks of `tiles_per_chunk` tiles; the last may be smaller."""
        size = tiles_per_chunk * self.tile_size
        return [(start, min(start + size, last)) for start in range(first, last, size)]

    def _cuts(self, first: int, last: int, number: int) -> list[Range]:
        tiles = self.num_tiles(last - first)
        cuts = [min(first + k * tiles // number * self.tile_size, last) for k in range(number + 1)]
        return list(itertools.pairwise(cuts))
