"""Checks that no tile is too small for batch normalisation."""

from __future__ import annotations

import math

from partrain.config.schema.training import Training
from partrain.errors import ConfigError
from partrain.network.layers import BatchNorm
from partrain.network.network import Network


def require_statistics(network: Network, training: Training, num_examples: int) -> None:
    """Check that each tile of an epoch has more than one number of each channel, so that these have a variance.

    Raises
    ------
    ConfigError
        The last tile of a batch has one example, and a layer has one number of each of its channels.
    """
    # Frozen ones, too, use the statistics of the tile in training.
    layers = [layer for layer in network.leaf_layers if isinstance(layer, BatchNorm)]
    alone = next((layer for layer in layers if math.prod(layer.input_shape[1:]) == 1), None)
    if alone is None:
        return
    sizes = {min(training.batch_size, num_examples): "each batch", num_examples % training.batch_size: "the last batch"}
    for size, batch in sizes.items():
        if size % training.tile == 1:
            raise ConfigError(
                f"training.tile: {batch} has {size} examples, so its last tile of {training.tile} has only one, which "
                f"has no variance for {alone.name}; change training.tile, training.batch_size or "
                "data.train_examples, or use group_norm"
            )
