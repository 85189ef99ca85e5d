"""Cuts the blocks of a batch into one run of blocks for each rank, so that each run is few whole nodes of the tree.

A rank adds the blocks of a node by itself, and sends one sum for the whole node. The tree is that of
`kernels.block_tree`: the node of level l and number k holds the blocks k·2^l to (k+1)·2^l - 1, as far as there are any.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from partrain.parallel.workers.tiles import Range, Tiling

# Nodes of a rank. More would make runs more equal, but each is one more gradient to send.
MOST_NODES = 2

Run = tuple[Range, ...]  # the nodes of a rank: first block, and one past the last


@functools.lru_cache(maxsize=16)
def block_runs(num_examples: int, tiling: Tiling, num_ranks: int) -> tuple[Run, ...]:
    """Return the nodes of each rank's run of blocks, in order; those of a rank without a block are none.

    The largest number of examples of a rank is as small as MOST_NODES allow.
    """
    num_blocks = len(tiling.blocks(num_examples))
    sizes = sorted({_size(run, num_examples, tiling) for run in _every_run(num_blocks)})
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        if _cover(num_examples, tiling, num_ranks, sizes[middle]) is None:
            low = middle + 1
        else:
            high = middle
    runs = _cover(num_examples, tiling, num_ranks, sizes[low]) if sizes else ()
    assert runs is not None
    return (*runs, *[()] * (num_ranks - len(runs)))


def examples_of(run: Run, num_examples: int, tiling: Tiling) -> Range:
    """Return the examples of a run's blocks."""
    if not run:
        return num_examples, num_examples
    return run[0][0] * tiling.block_size, min(run[-1][1] * tiling.block_size, num_examples)


def additions(nodes: tuple[Range, ...], num_blocks: int) -> list[tuple[int, int]]:
    """Return in which order the tree adds nodes that hold all blocks.

    Returns
    -------
    Pairs (i, j): the sum of node i becomes that of nodes i and j. In the end node 0 has the sum of the batch.
    """
    numbers = {node: number for number, node in enumerate(nodes)}
    steps: list[tuple[int, int]] = []

    def add(first: int, last: int) -> int:
        if (first, last) in numbers:
            return numbers[first, last]
        middle = first + (1 << (last - first - 1).bit_length() - 1)
        left, right = add(first, middle), add(middle, last)
        steps.append((left, right))
        return left

    add(0, num_blocks)
    return steps


def _size(run: Run, num_examples: int, tiling: Tiling) -> int:
    first, last = examples_of(run, num_examples, tiling)
    return last - first


def _cover(num_examples: int, tiling: Tiling, num_ranks: int, most_examples: int) -> tuple[Run, ...] | None:
    """Return at most `num_ranks` runs of at most so many examples, with as few nodes as possible; None: impossible."""
    num_blocks = len(tiling.blocks(num_examples))
    best: dict[int, tuple[int, int, tuple[Run, ...]]] = {0: (0, 0, ())}  # by end: numbers of ranks and nodes, and runs
    for first in range(num_blocks):
        if first not in best:
            continue
        ranks, nodes, runs = best[first]
        for run in _runs_from(first, num_blocks):
            if _size(run, num_examples, tiling) > most_examples:
                continue
            found = (ranks + 1, nodes + len(run), (*runs, run))
            last = run[-1][1]
            if last not in best or found[:2] < best[last][:2]:
                best[last] = found
    ranks, _, runs = best.get(num_blocks, (num_ranks + 1, 0, ()))
    return runs if ranks <= num_ranks else None


def _every_run(num_blocks: int) -> Iterator[Run]:
    for first in range(num_blocks):
        yield from _runs_from(first, num_blocks)


def _runs_from(first: int, num_blocks: int, most_nodes: int = MOST_NODES) -> Iterator[Run]:
    """Yield the runs of whole nodes that begin with a block."""
    size = 1
    while first < num_blocks and first % size == 0:
        node = first, min(first + size, num_blocks)
        yield (node,)
        if most_nodes > 1:
            for rest in _runs_from(node[1], num_blocks, most_nodes - 1):
                yield (node, *rest)
        if node[1] == num_blocks:
            return
        size *= 2
