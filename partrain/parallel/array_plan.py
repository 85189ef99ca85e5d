"""What the coordinator and its workers exchange, as a plan of shared arrays."""

from __future__ import annotations

from partrain.network.network import Network
from partrain.parallel.workers.tiles import Tiling
from partrain.system.shared_arrays import ArraySpec


def evaluation_specs(network: Network, dtype: str, num_results: int) -> dict[str, ArraySpec]:
    """Plan the arrays that an evaluation exchanges.

    `parameters` go from the coordinator to the workers. Back come each example's loss, its predicted class, and the
    probability of that class (`confidences`).
    """
    return {
        "parameters": ArraySpec((network.parameters.size,), dtype),
        "losses": ArraySpec((num_results,), "float64"),
        "predictions": ArraySpec((num_results,), "int64"),
        "confidences": ArraySpec((num_results,), "float64"),
    }


def norm_specs(network: Network, num_examples: int) -> dict[str, ArraySpec]:
    """Plan the array for the squared norms of each example's gradient, a column for each layer with parameters."""
    return {"squared_norms": ArraySpec((num_examples, len(network.trained_layers)), "float64")}


def exchange_specs(
    network: Network, batch_size: int, tiling: Tiling, dtype: str, num_results: int
) -> dict[str, ArraySpec]:
    """Plan the arrays that a training exchanges.

    Those of an evaluation (`num_results`: a batch's, or those of a whole evaluation), and `indices` that go from the
    coordinator to the workers. Back come besides a slot of sums for each tile, and factors of each dense layer with a
    row for each example. A step writes no `confidences`.
    """
    specs = evaluation_specs(network, dtype, num_results)
    specs["indices"] = ArraySpec((batch_size,), "int64")
    specs["tile_sums"] = ArraySpec((tiling.num_tiles(batch_size), network.tile_sums.size), dtype)
    for layer in network.dense_layers:
        specs[f"{layer.name}.inputs"] = ArraySpec((batch_size, *layer.input_shape), dtype)
        specs[f"{layer.name}.deltas"] = ArraySpec((batch_size, *layer.output_shape), dtype)
    return specs
