"""A tile must have more than one number of each channel, or batch normalisation has no variance."""

from __future__ import annotations

import pytest

from partrain.config.schema.layers import Conv, Dense, Flatten
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm
from partrain.config.schema.training import Training
from partrain.errors import ConfigError
from partrain.network.network import Network
from partrain.training.batch_norm_limits import require_statistics

VECTORS = Network([Flatten(), BatchNorm(), Dense(units=3)], (1, 4, 4), 3)
FROZEN = Network([Flatten(), BatchNorm(), Dense(units=3)], (1, 4, 4), 3, ["batch_norm1"])
IMAGES = Network([Conv(filters=2, kernel=3), BatchNorm(), Flatten(), Dense(units=3)], (1, 4, 4), 3)
OTHER = Network([Flatten(), GroupNorm(groups=4), Dense(units=3)], (1, 4, 4), 3)


@pytest.mark.parametrize(("num_examples", "batch"), [(33, "the last batch has 1 "), (69, "the last batch has 5 ")])
def test_a_last_tile_of_one_vector_is_refused(num_examples, batch):
    with pytest.raises(ConfigError, match=rf"^training\.tile: {batch}.* batch_norm1; .*group_norm$"):
        require_statistics(VECTORS, Training(batch_size=32, tile=4), num_examples)
    for network in (IMAGES, OTHER):
        require_statistics(network, Training(batch_size=32, tile=4), num_examples)


def test_a_frozen_layer_needs_statistics_as_well():
    with pytest.raises(ConfigError, match="no variance for batch_norm1"):
        require_statistics(FROZEN, Training(batch_size=32, tile=4), 33)


def test_batches_whose_tiles_all_have_one_vector_left_over_are_refused():
    with pytest.raises(ConfigError, match="each batch has 29 examples"):
        require_statistics(VECTORS, Training(batch_size=29, tile=4), 290)
    require_statistics(VECTORS, Training(batch_size=30, tile=4), 300)
