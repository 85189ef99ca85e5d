"""Measures the steps of an MPI job and their exchange, and predicts the speed-up for more hosts."""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from partrain.bench.host_model import LINKS, HostCosts, widened
from partrain.bench.trial import RUN, RUN_WITH_NORMS, MeasuredTraining, seconds_of
from partrain.config.schema.config import Config
from partrain.data.split_name import SplitName
from partrain.network.network import Network
from partrain.parallel.compute_resources import RankConnection, compute_resources
from partrain.parallel.mpi.compute_group import MpiComputeGroup
from partrain.parallel.mpi.exchange import Message
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.system.messages import Messages
from partrain.system.process_directory import process_directory
from partrain.system.signals import Interruption
from partrain.training.mpi.agreement import require_agreement
from partrain.training.mpi.initial_state import InitialState
from partrain.training.plan import plan_training
from partrain.training.session import Session

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.communicator import Communicator

# Numbers of steps instead of seconds, because all ranks must make the same number.
WARM_UP_STEPS, MEASURED_STEPS = 100, 400
PHASES = ("compute", "exchange", "update", "step")
MODEL_HOSTS = (2, 8, 64)
MODEL_BATCHES = (32, 128, 512, 2048)
# The factor for filters and units of the larger network: about 100 times as many weights and multiply-adds.
WIDER = 10


def take_part_in_bench(session: Session, config: Config | None) -> dict[str, Any]:
    """Measure on this rank; every rank calls this. Only rank 0 has a `config`, which it broadcasts."""
    ranks = session.ranks
    assert ranks is not None
    content = ranks.group.broadcast(None if config is None else InitialState(config).to_bytes())
    return measure_ranks(
        InitialState.from_bytes(content).config, session.num_workers, ranks.group, session.messages, ranks.received
    )


def measure_ranks(
    config: Config, num_workers: int, ranks: Communicator, messages: Messages, interruption: Interruption
) -> dict[str, Any]:
    """Measure a training run on all ranks; every rank calls this.

    Parameters
    ----------
    config : the training; the same on all ranks.
    num_workers : the number of workers of this rank.
    ranks : the communicator of all ranks.
    messages : prints progress.
    interruption : signals that this rank received.

    Returns
    -------
    The results, for JSON: "training", "ranks", "exchange", "model".

    Raises
    ------
    UserError, FailedRun
        As for a training run.

    Side effects
    ------------
    Starts processes and ends them. Writes metrics into a temporary directory and deletes it.
    """
    plan = plan_training(config, say=messages.say, warn=messages.warn)
    require_agreement(ranks, plan)
    agreed = Interruption()
    connection = RankConnection(ranks, ranks.num_processors, interruption, agreed)
    with contextlib.ExitStack() as at_end:
        resources = at_end.enter_context(compute_resources(plan.compute_plan(), num_workers, messages, agreed))
        group = at_end.enter_context(
            resources.group(num_workers, max_restarts=0, log=messages.say, connection=connection)
        )
        assert isinstance(group, MpiComputeGroup)
        folder = at_end.enter_context(tempfile.TemporaryDirectory(dir=process_directory()))
        training = MeasuredTraining(plan, resources.arrays, Path(folder), messages.warn)
        at_end.callback(training.close)
        messages.say(f"measuring with {ranks.size} ranks")
        own = _measure_steps(training, group, agreed)
        exchange = _measure_exchange(training, group, ranks)
        # Meanwhile the other ranks sleep.
        compute = _measure_compute(training, group.local) if ranks.rank == 0 else {}
        gathered = ranks.allgather({"host": socket.gethostname(), "workers": num_workers} | own)
        return {
            "training": {
                "name": plan.config.name,
                "batch_size": training.num_examples,
                "tile": plan.tiling.tile_size,
            },
            "ranks": gathered,
            "exchange": exchange,
            "model": _model(training, own, exchange, compute) if ranks.rank == 0 else {},
        }


def _measure_steps(training: MeasuredTraining, group: MpiComputeGroup, agreed: Interruption) -> dict[str, float]:
    """Return the median phases of steps in microseconds; "exchange" includes the wait for the slowest rank."""
    make_step = training.on(group)
    samples: dict[str, list[float]] = {name: [] for name in ("prepare", *PHASES)}
    for number in range(WARM_UP_STEPS + MEASURED_STEPS):
        agreed.check()
        times = make_step()
        if number >= WARM_UP_STEPS:
            exchange = group.exchanged_at - group.computed_at
            samples["prepare"].append(times["prepare"])
            samples["update"].append(times.get("noise", 0.0) + times["update"])
            samples["step"].append(times["step"])
            samples["exchange"].append(exchange)
            samples["compute"].append(times.get(RUN, times.get(RUN_WITH_NORMS, 0.0)) - exchange)
    return {f"{name}_us": 1e6 * statistics.median(values) for name, values in samples.items()}


def _measure_exchange(training: MeasuredTraining, group: MpiComputeGroup, ranks: Communicator) -> dict[str, Any]:
    """Measure the exchange of a step alone, from the arrival of the last rank until each rank has all results."""
    num_examples = training.round_size
    command = Command(training.operation, SplitName.TRAIN, 0, num_examples)
    message = group.step_message(training.operation, num_examples)
    seconds, packing = [], []
    for _ in range(MEASURED_STEPS):
        ranks.barrier()
        seconds.append(seconds_of(lambda: group.exchange(command, num_examples)))
    for _ in range(MEASURED_STEPS):
        packing.append(seconds_of(lambda: _copy(message)))
    return {
        "median_us": 1e6 * statistics.median(seconds),
        "p90_us": 1e6 * statistics.quantiles(seconds, n=10)[-1],
        "copying_us": 1e6 * statistics.median(packing),
        "bytes_of_ranks": list(message.counts),
        "bytes": sum(message.counts),
        "exchanges": MEASURED_STEPS,
    }


def _copy(message: Message) -> None:
    for target, source in (*message.outgoing, *message.incoming):
        target[...] = source


def _measure_compute(training: MeasuredTraining, local: ComputeGroup) -> dict[int, float]:
    """Return the seconds of this rank by number of tiles: for powers of 2, and for the whole batch."""
    tiling, num_examples = training.plan.tiling, training.round_size
    tiles = tiling.num_tiles(num_examples)
    medians = {}
    for number in sorted({*(2**k for k in range(tiles.bit_length()) if 2**k < tiles), tiles}):
        shards = tiling.shards(0, min(number * tiling.tile_size, num_examples), local.num_at_once)
        commands = [Command(training.operation, SplitName.TRAIN, first, last) for first, last in shards]
        samples = []
        for _ in range(MEASURED_STEPS // 4):
            begin = monotonic()
            local.run(commands)
            samples.append(monotonic() - begin)
        medians[number] = statistics.median(samples)
    return medians


def _model(
    training: MeasuredTraining,
    own: dict[str, float],
    exchange: dict[str, Any],
    compute: dict[int, float],
) -> dict[str, Any]:
    plan = training.plan
    config, network = plan.config, plan.network
    costs = HostCosts(
        network=network,
        tiling=plan.tiling,
        dtype=config.training.dtype,
        serial=own["prepare_us"] / 1e6,
        compute=compute,
        batch_size=training.round_size,
        update=own["update_us"] / 1e6,
        pack_s_per_byte=exchange["copying_us"] / 1e6 / exchange["bytes"],
    )
    wide = Network(widened(config.network, WIDER), network.input_shape, network.num_outputs)
    work, parameters = (
        sum(layer.multiply_adds for layer in wide.layers) / sum(layer.multiply_adds for layer in network.layers),
        wide.parameters.size / network.parameters.size,
    )
    larger = replace(costs, network=wide, larger=(work, parameters))
    networks = {"this network": costs, f"{work:.0f} times the multiply-adds": larger}
    return {
        "compute_us": {str(tiles): seconds * 1e6 for tiles, seconds in compute.items()},
        "update_us": own["update_us"],
        "larger": {"multiply_adds": work, "parameters": parameters},
        "expected": [
            {
                "network": name,
                "batch_size": batch_size,
                "hosts": hosts,
                "link": link.name,
                "bytes": model.num_bytes(batch_size, hosts),
                "step_us": model.step(batch_size, hosts, link) * 1e6,
                "speed_up": model.speed_up(batch_size, hosts, link),
            }
            for name, model in networks.items()
            for batch_size in MODEL_BATCHES
            for link in LINKS
            for hosts in MODEL_HOSTS
        ],
    }
