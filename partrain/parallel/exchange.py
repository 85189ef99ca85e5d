"""What the coordinator and its workers exchange in a step, as a plan of shared arrays."""

from __future__ import annotations

from partrain.network.network import Network
from partrain.parallel.shared_arrays import ArraySpec
from partrain.parallel.tiles import num_tiles


def exchange_specs(network: Network, batch_size: int, tile: int, dtype: str, num_results: int) -> dict[str, ArraySpec]:
    """Plan the arrays that a step exchanges.

    `parameters` and `indices` go from the coordinator to the workers. Back come a slot of sums for each tile,
    factors of each dense layer with a row for each example, and each example's loss and predicted class
    (`num_results` of them: a batch's, or those of a whole evaluation).
    """
    specs = {
        "parameters": ArraySpec((network.parameters.size,), dtype),
        "indices": ArraySpec((batch_size,), "int64"),
        "tile_sums": ArraySpec((num_tiles(batch_size, tile), network.tile_sums.size), dtype),
        "losses": ArraySpec((num_results,), "float64"),
        "predictions": ArraySpec((num_results,), "int64"),
    }
    for layer in network.dense_layers:
        specs[f"{layer.name}.inputs"] = ArraySpec((batch_size, *layer.input_shape), dtype)
        specs[f"{layer.name}.deltas"] = ArraySpec((batch_size, *layer.output_shape), dtype)
    return specs
