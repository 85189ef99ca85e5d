from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from partrain.parallel.workers.tiles import Tiling

counts = st.integers(1, 5000)


@given(counts, st.integers(1, 300))
def test_tiles_hold_all_examples_and_none_is_empty(num_examples: int, tile: int) -> None:
    tiles = Tiling(tile).num_tiles(num_examples)
    assert (tiles - 1) * tile < num_examples <= tiles * tile


@given(counts, st.integers(1, 300), st.integers(1, 64))
def test_shards_hold_each_example_once_and_in_order(num_examples: int, tile: int, num_shards: int) -> None:
    shards = Tiling(tile).shards(0, num_examples, num_shards)
    assert [k for first, last in shards for k in range(first, last)] == list(range(num_examples))


@given(counts, st.integers(1, 300), st.integers(1, 64))
def test_shards_are_cut_between_tiles_alone(num_examples: int, tile: int, num_shards: int) -> None:
    shards = Tiling(tile).shards(0, num_examples, num_shards)
    for (_, last), (first, _) in itertools.pairwise(shards):
        assert last == first
        assert first % tile == 0


@given(counts, st.integers(1, 300), st.integers(1, 64))
def test_shards_differ_by_at_most_one_tile(num_examples: int, tile: int, num_shards: int) -> None:
    shards = Tiling(tile).shards(0, num_examples, num_shards)
    sizes = [Tiling(tile).num_tiles(last - first) for first, last in shards]
    assert len(shards) == min(num_shards, Tiling(tile).num_tiles(num_examples))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_batch_that_nothing_divides_is_cut_as_by_hand() -> None:
    assert Tiling(7).shards(0, 50, 3) == [(0, 14), (14, 35), (35, 50)]


def test_no_example_makes_no_shard() -> None:
    assert Tiling(4).num_tiles(0) == 0
    assert Tiling(4).shards(0, 0, 3) == []
