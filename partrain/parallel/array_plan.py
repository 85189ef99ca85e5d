"""Plans the shared arrays through which the coordinator and its workers exchange data."""

from __future__ import annotations

from partrain.kernels.update_rules import NUM_COEFFICIENTS, Rule
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.workers.tiles import Tiling
from partrain.system.shared_arrays import ArraySpec


def evaluation_specs(network: Network, dtype: str, num_results: int) -> dict[str, ArraySpec]:
    """Plan the arrays of an evaluation.

    The coordinator writes `parameters`. Workers write each example's loss, its predicted class, and the probability of
    that class (`confidences`).

    Parameters
    ----------
    num_results : the number of examples for which there is space.
    """
    return {
        "parameters": ArraySpec((network.parameters.size,), dtype),
        "losses": ArraySpec((num_results,), "float64"),
        "predictions": ArraySpec((num_results,), "int64"),
        "confidences": ArraySpec((num_results,), "float64"),
    }


def norm_specs(network: Network, num_examples: int) -> dict[str, ArraySpec]:
    """Plan the array of squared gradient norms: one row per example, one column per layer with parameters."""
    return {"squared_norms": ArraySpec((num_examples, len(network.trained_layers)), "float64")}


def exchange_specs(
    network: Network, batch_size: int, tiling: Tiling, dtype: str, num_results: int
) -> dict[str, ArraySpec]:
    """Plan the arrays of a training run.

    They include the arrays of an evaluation; a step does not write `confidences`. The coordinator also writes
    `indices`. Workers also write the sums of each tile into its slot of `tile_sums`, and the factors of each dense
    layer, one row per example.

    Parameters
    ----------
    num_results : the larger of the batch size and the number of examples of an evaluation.
    """
    specs = evaluation_specs(network, dtype, num_results)
    specs["indices"] = ArraySpec((batch_size,), "int64")
    specs["tile_sums"] = ArraySpec((tiling.num_tiles(batch_size), network.tile_sums.size), dtype)
    for layer in network.dense_layers:
        specs[f"{layer.name}.inputs"] = ArraySpec((batch_size, *layer.input_shape), dtype)
        specs[f"{layer.name}.deltas"] = ArraySpec((batch_size, *layer.output_shape), dtype)
    return specs


# Parameters of the largest network whose steps are planned ahead: planning needs a second copy of the parameters and of
# the moments, 12 bytes for each parameter. With 670,000 and 1.2 million, steps took 0.9 and 0.8 of the time.
MOST_PARAMETERS = 2**21
# Steps in the ring: at most MOST_STEPS, with MOST_EXAMPLES examples all together.
MOST_STEPS, MOST_EXAMPLES, LEAST_STEPS = 128, 2**15, 4
# float32 numbers on a cache line.
NUMBERS_OF_LINE = 16


def planned_specs(network: Network, groups: ParameterGroups, kernels: str, batch_size: int) -> dict[str, ArraySpec]:
    """Plan the ring of steps that workers make by themselves; empty if the coordinator takes part in every step.

    For each step, the coordinator writes the number of examples, the epoch and the operation (`numbers`), the examples
    (`indices`), and the coefficients of each group of parameters; workers write losses, predictions, and the step's
    times. They write new moments beside those of the step before, and new parameters alternately to `steps.parameters`
    and to the parameters themselves, in pieces. Both rows of moments begin on a cache line: with one that did not, Adam
    took 1.15 of the time.
    """
    U = network.parameters.size
    row = -(-U // NUMBERS_OF_LINE) * NUMBERS_OF_LINE
    if kernels != "fast" or U > MOST_PARAMETERS or Rule.MUON in groups.rules:
        return {}
    R = max(LEAST_STEPS, min(MOST_STEPS, MOST_EXAMPLES // batch_size))
    return {
        "steps.numbers": ArraySpec((R, 3), "int64"),
        "steps.indices": ArraySpec((R, batch_size), "int64"),
        "steps.coefficients": ArraySpec((R, len(groups.groups), NUM_COEFFICIENTS), "float32"),
        "steps.losses": ArraySpec((R, batch_size), "float64"),
        "steps.predictions": ArraySpec((R, batch_size), "int64"),
        "steps.times": ArraySpec((R, 4), "float64"),
        "steps.parameters": ArraySpec((U,), "float32"),
        "steps.first_moments": ArraySpec((2, row * groups.have_first_moments), "float32"),
        "steps.second_moments": ArraySpec((2, row * groups.have_second_moments), "float32"),
    }
