from __future__ import annotations

import itertools

import pytest

from partrain.config.schema.layers import Conv, Dense, Flatten, Relu
from partrain.config.schema.optimizer import Optimizer
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.update.piece_plan import cut_update, share_pieces

NETWORK = Network([Conv(filters=8, kernel=5), Relu(), Flatten(), Dense(units=128), Relu(), Dense(units=10)],
                  (1, 16, 16), 10)  # fmt: skip
GROUPS = ParameterGroups(NETWORK.parameters, Optimizer())
PIECES = list(cut_update(NETWORK, GROUPS))


@pytest.mark.parametrize("num_members", [1, 2, 3, 7, 64])
def test_each_piece_belongs_to_one_member(num_members: int) -> None:
    shares = share_pieces(NETWORK, GROUPS, 32, num_members)
    assert len(shares) == num_members
    assert list(itertools.chain.from_iterable(range(*share) for share in shares)) == list(range(len(PIECES)))


def test_members_get_about_the_same_number_of_parameters() -> None:
    sizes = [sum(piece.size for piece in PIECES[first:last]) for first, last in share_pieces(NETWORK, GROUPS, 32, 3)]
    assert max(sizes) - min(sizes) <= 2 * max(piece.size for piece in PIECES)


def test_the_member_with_rows_that_compete_for_the_cache_gets_fewer_parameters() -> None:
    network = Network([Flatten(), Dense(units=512), Relu(), Dense(units=785)], (1, 28, 28), 785)
    groups = ParameterGroups(network.parameters, Optimizer())
    pieces = list(cut_update(network, groups))
    first, second = (sum(p.size for p in pieces[begin:end]) for begin, end in share_pieces(network, groups, 32, 2))
    assert second < 0.95 * first
