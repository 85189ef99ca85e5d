"""Measures the steps of an MPI job and their exchange, and predicts the speed-up for more hosts."""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partrain.bench.host_model import LINKS, HostCosts, widened
from partrain.bench.trial import RUN, RUN_WITH_NORMS, MeasuredTraining, seconds_of
from partrain.config.schema.config import Config
from partrain.data.split_name import SplitName
from partrain.network.network import Network
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.compute_resources import RankConnection, compute_resources
from partrain.parallel.mpi.compute_group import MpiComputeGroup
from partrain.parallel.mpi.owner_exchange import EXCHANGE_OF_PARAMETERS, EXCHANGE_OF_SUMS, PARTS, SUMS
from partrain.parallel.mpi.owner_messages import NONE
from partrain.parallel.mpi.step_bytes import step_bytes
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.system.messages import Messages
from partrain.system.process_directory import process_directory
from partrain.system.signals import Interruption
from partrain.training.mpi.agreement import require_agreement
from partrain.training.mpi.initial_state import InitialState
from partrain.training.mpi.owners import bytes_of_ranks, choose_owners
from partrain.training.plan import plan_training
from partrain.training.session import Session
from partrain.training.step.composition import make_parameter_update

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.communicator import Communicator

# Numbers of steps instead of seconds, because all ranks must make the same number.
WARM_UP_STEPS, MEASURED_STEPS = 100, 400
PHASES = ("compute", "sums", "exchange", "update", "step")
MODEL_HOSTS = (2, 8, 64)
MODEL_BATCHES = (32, 128, 512, 2048)
# The factor for filters and units of the larger network: about 100 times as many weights and multiply-adds.
WIDER = 10


def take_part_in_bench(session: Session, config: Config | None) -> dict[str, Any]:
    """Measure on this rank; every rank calls this. Only rank 0 has a `config`, which it broadcasts."""
    ranks = session.ranks
    assert ranks is not None
    content = ranks.group.everyone.broadcast(None if config is None else InitialState(config).to_bytes())
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
    require_agreement(ranks.everyone, plan)
    agreed = Interruption()
    ownership = choose_owners(plan, ranks.size)
    connection = RankConnection(ranks, ranks.num_processors, interruption, agreed, ownership)
    of_ranks = bytes_of_ranks(plan, ranks.size, ownership)
    kernels = connection.kernels(plan.config.training.kernels)
    with contextlib.ExitStack() as at_end:
        resources = at_end.enter_context(
            compute_resources(plan.compute_plan(of_ranks), num_workers, messages, agreed, more_kernels=kernels)
        )
        group = at_end.enter_context(
            resources.group(num_workers, max_restarts=0, log=messages.say, connection=connection)
        )
        assert isinstance(group, MpiComputeGroup)
        folder = at_end.enter_context(tempfile.TemporaryDirectory(dir=process_directory()))
        training = MeasuredTraining(plan, resources.arrays, Path(folder), messages.warn, group.owners)
        at_end.callback(training.close)
        messages.say(f"measuring with {ranks.size} ranks")
        own = _measure_steps(training, group, agreed)
        exchange = _measure_exchange(training, group, ranks)
        copy_s_per_byte = _measure_copying(training.arrays["parameters"])
        # Meanwhile the other ranks sleep.
        compute = _measure_compute(training, group.local) if ranks.rank == 0 else {}
        gathered = ranks.allgather({"host": socket.gethostname(), "workers": num_workers} | own)
        return {
            "training": training.facts,
            "ranks": gathered,
            "exchange": exchange,
            "model": _model(training, own, copy_s_per_byte, compute) if ranks.rank == 0 else {},
        }


def _measure_steps(training: MeasuredTraining, group: MpiComputeGroup, agreed: Interruption) -> dict[str, float]:
    """Return the median phases of steps in microseconds; "exchange" includes the wait for the slowest rank."""
    make_step = training.on(group)
    samples: dict[str, list[float]] = {name: [] for name in ("prepare", *PHASES)}
    for number in range(WARM_UP_STEPS + MEASURED_STEPS):
        agreed.check()
        times = make_step()
        if number >= WARM_UP_STEPS:
            exchange, own = group.exchanged_at - group.computed_at, _seconds_of_owners(group)
            sums, parameters = own[SUMS], own[EXCHANGE_OF_PARAMETERS]
            samples["prepare"].append(times["prepare"])
            samples["sums"].append(sums)
            samples["update"].append(times.get("noise", 0.0) + times["update"] - parameters)
            samples["step"].append(times["step"])
            samples["exchange"].append(exchange - sums + parameters)
            samples["compute"].append(times.get(RUN, times.get(RUN_WITH_NORMS, 0.0)) - exchange)
    return {f"{name}_us": 1e6 * statistics.median(values) for name, values in samples.items()}


def _seconds_of_owners(group: MpiComputeGroup) -> dict[str, float]:
    """Return the seconds of the parts of the last step with owners; zeros if there are none."""
    return dict.fromkeys(PARTS, 0.0) if group.owners is None else group.owners.seconds


def _measure_exchange(training: MeasuredTraining, group: MpiComputeGroup, ranks: Communicator) -> dict[str, Any]:
    """Measure the exchange of a step alone, from the arrival of the last rank until each rank has all results."""
    num_examples, owners, plan = training.round_size, group.owners, training.plan
    command = Command(training.operation, SplitName.TRAIN, 0, num_examples)
    samples: dict[str, list[float]] = {EXCHANGE_OF_SUMS: [], EXCHANGE_OF_PARAMETERS: []}
    for _ in range(MEASURED_STEPS):
        ranks.everyone.barrier()
        if owners is None:
            samples[EXCHANGE_OF_SUMS].append(seconds_of(lambda: group.exchange(command, num_examples)))
            continue
        group.exchange_sums(owners, training.operation, num_examples)
        samples[EXCHANGE_OF_SUMS].append(owners.seconds[EXCHANGE_OF_SUMS])
        ranks.everyone.barrier()
        owners.send_owned(num_examples, owners.sum, (NONE, NONE, NONE))
        samples[EXCHANGE_OF_PARAMETERS].append(owners.seconds[EXCHANGE_OF_PARAMETERS])
    both = [sum(times) for times in zip(*filter(None, samples.values()), strict=True)]
    ownership, dtype = choose_owners(plan, ranks.size), plan.config.training.dtype
    sent = step_bytes(plan.network, num_examples, plan.tiling, dtype, ranks.size, ownership)
    return {
        "median_us": 1e6 * statistics.median(both),
        "p90_us": 1e6 * statistics.quantiles(both, n=10)[-1],
        "by_message_us": [1e6 * statistics.median(times) for times in samples.values() if times],
        "bytes_of_ranks": [asdict(of_rank) for of_rank in sent],
        "bytes": sum(of_rank.total for of_rank in sent),
        "exchanges": MEASURED_STEPS,
    }


def _measure_copying(vector: NDArray[Any]) -> float:
    """Return the seconds to copy one byte of a vector."""
    copy = np.empty_like(vector)
    seconds = [seconds_of(lambda: np.copyto(copy, vector)) for _ in range(MEASURED_STEPS)]
    return statistics.median(seconds) / vector.nbytes


def _measure_compute(training: MeasuredTraining, local: ComputeGroup) -> dict[int, float]:
    """Return the seconds of this rank by number of tiles: for powers of 2, and for the whole batch."""
    tiling, num_examples = training.plan.tiling, training.round_size
    medians = {}
    for number in _measured_tiles(training):
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
    training: MeasuredTraining, own: dict[str, float], copy_s_per_byte: float, compute: dict[int, float]
) -> dict[str, Any]:
    plan = training.plan
    update = _measure_update(training)
    costs = HostCosts(
        network=plan.network,
        groups=plan.groups,
        training=plan.config.training,
        tiling=plan.tiling,
        serial=own["prepare_us"] / 1e6,
        compute=compute,
        update=update,
        updated=plan.network.parameters.size,
        copy_s_per_byte=copy_s_per_byte,
    )
    return {
        "serial_us": costs.serial * 1e6,
        "compute_us": {str(tiles): seconds * 1e6 for tiles, seconds in compute.items()},
        "update_us": {str(tiles): seconds * 1e6 for tiles, seconds in update.items()},
        "copy_ns_per_byte": copy_s_per_byte * 1e9,
    } | predict(costs, plan.config)


def predict(costs: HostCosts, config: Config) -> dict[str, Any]:
    """Return what the model says of more hosts, for JSON: "larger", the other network, and "expected", the speed-ups.

    Parameters
    ----------
    costs : of the network of `config`.
    """
    network = costs.network
    wide = Network(widened(config.network, WIDER), network.input_shape, network.num_outputs)
    work, parameters = (
        sum(layer.multiply_adds for layer in wide.layers) / sum(layer.multiply_adds for layer in network.layers),
        wide.parameters.size / network.parameters.size,
    )
    groups = ParameterGroups.of(wide, config.training.optimizer)
    larger = replace(costs, network=wide, groups=groups, work=work)
    networks = {"this network": costs, f"{work:.0f} times the multiply-adds": larger}
    return {
        "larger": {"multiply_adds": work, "parameters": parameters},
        "expected": [
            {
                "network": name,
                "batch_size": batch_size,
                "hosts": hosts,
                "link": link.name,
                "bytes": model.sent(batch_size, hosts).total,
                "step_us": model.step(batch_size, hosts, link) * 1e6,
                "speed_up": model.speed_up(batch_size, hosts, link),
            }
            for name, model in networks.items()
            for batch_size in MODEL_BATCHES
            for link in LINKS
            for hosts in MODEL_HOSTS
        ],
    }


def _measured_tiles(training: MeasuredTraining) -> list[int]:
    """Return the numbers of tiles that are measured: powers of 2, and the whole batch."""
    tiles = training.plan.tiling.num_tiles(training.round_size)
    return sorted({*(2**k for k in range(tiles.bit_length()) if 2**k < tiles), tiles})


def _measure_update(training: MeasuredTraining) -> dict[int, float]:
    """Return the seconds of the whole update on this rank alone, by number of tiles."""
    plan, medians = training.plan, {}
    optimizer = ParameterOptimizer(training.arrays["parameters"].copy(), plan.groups, plan.config.training)
    update = make_parameter_update(plan, training.arrays, optimizer)
    with contextlib.closing(update):
        for number in _measured_tiles(training):
            num_examples = min(number * plan.tiling.tile_size, training.round_size)
            steps = range(1, MEASURED_STEPS // 4)
            medians[number] = statistics.median(seconds_of(partial(update.apply, num_examples, step)) for step in steps)
    return medians
