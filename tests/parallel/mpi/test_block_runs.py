from __future__ import annotations

import pytest

from partrain.parallel.mpi.block_runs import MOST_NODES, additions, block_runs, examples_of
from partrain.parallel.workers.tiles import Tiling

TILING = Tiling(4)


def nodes_of_tree(first: int, last: int) -> set[tuple[int, int]]:
    """Return all nodes of the tree over these blocks: the largest power of two below their number goes left."""
    if last - first == 1:
        return {(first, last)}
    middle = first + 2 ** ((last - first - 1).bit_length() - 1)
    return {(first, last)} | nodes_of_tree(first, middle) | nodes_of_tree(middle, last)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 7, 11, 32, 63, 64])
@pytest.mark.parametrize("num_examples", [1, 32, 33, 256, 300, 2048, 2100])
def test_runs_are_whole_nodes_that_hold_all_blocks(num_examples: int, num_ranks: int) -> None:
    num_blocks = -(-num_examples // 32)
    runs = block_runs(num_examples, TILING, num_ranks)
    nodes = [node for run in runs for node in run]
    assert len(runs) == num_ranks
    assert max(map(len, runs)) <= MOST_NODES
    assert set(nodes) <= nodes_of_tree(0, num_blocks)
    assert [nodes[0][0], *(last for _, last in nodes)] == [*(first for first, _ in nodes), num_blocks]
    examples = [examples_of(run, num_examples, TILING) for run in runs]
    assert sum(last - first for first, last in examples) == num_examples


@pytest.mark.parametrize(("num_examples", "num_ranks", "most"), [(2048, 64, 32), (2048, 3, 768), (300, 2, 172)])
def test_runs_are_as_equal_as_two_nodes_allow(num_examples: int, num_ranks: int, most: int) -> None:
    runs = block_runs(num_examples, TILING, num_ranks)
    sizes = [last - first for first, last in (examples_of(run, num_examples, TILING) for run in runs)]
    assert max(sizes) == most


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 6, 13, 64])
def test_additions_make_the_tree(num_blocks: int) -> None:
    def tree(first: int, last: int) -> object:
        if last - first == 1:
            return first
        middle = first + 2 ** ((last - first - 1).bit_length() - 1)
        return tree(first, middle), tree(middle, last)

    sums: list[object] = list(range(num_blocks))
    for left, right in additions(tuple((k, k + 1) for k in range(num_blocks)), num_blocks):
        sums[left] = sums[left], sums[right]
    assert sums[0] == tree(0, num_blocks)
