"""What the ranks of an MPI job take for a step, and for its exchange; and what a model expects of more hosts."""

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
from partrain.bench.trial import Trainer, say_what_is_left_out, seconds_of
from partrain.config.schema.config import Config
from partrain.data.split_name import SplitName
from partrain.network.network import Network
from partrain.parallel.compute_resources import RankConnection, compute_resources
from partrain.parallel.mpi.compute_group import MpiComputeGroup
from partrain.parallel.mpi.exchange import Message
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.store.metrics_log import MetricsLog
from partrain.store.run_paths import RunPaths
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.training.mpi.agreement import require_agreement
from partrain.training.mpi.initial_state import InitialState
from partrain.training.plan import TrainingPlan, plan_training
from partrain.training.session import Session

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.communicator import Communicator

# Numbers of steps, and not seconds: all ranks must make as many.
WARM_UP_STEPS, MEASURED_STEPS = 100, 400
PHASES = ("compute", "exchange", "update", "step")
MODEL_HOSTS = (2, 8, 64)
MODEL_BATCHES = (32, 128, 512, 2048)
# A hundred times as many weights and multiply-adds, about.
WIDER = 10


def take_part_in_bench(session: Session, config: Config | None) -> dict[str, Any]:
    """Measure, on any rank; `config` is of rank 0 alone, which gives it to the others."""
    ranks = session.ranks
    assert ranks is not None
    content = ranks.group.broadcast(None if config is None else InitialState(config).to_bytes())
    return measure_ranks(
        InitialState.from_bytes(content).config, session.num_workers, ranks.group, session.messages, ranks.received
    )


def measure_ranks(
    config: Config, num_workers: int, ranks: Communicator, messages: Messages, interruption: Interruption
) -> dict[str, Any]:
    """Measure a training on all ranks; each of them calls this.

    Parameters
    ----------
    config : what to train; the same on all ranks.
    num_workers : of this rank.
    ranks : all of them.
    messages, interruption : where to speak, and what this rank listens to.

    Returns
    -------
    The facts, as they go into JSON: "training", "ranks", "exchange", "model".

    Raises
    ------
    UserError, FailedRun
        As a training.

    Side effects
    ------------
    Starts processes, and ends them. Writes metrics into a temporary folder, and deletes it.
    """
    plan = plan_training(config, say=messages.say, warn=messages.warn)
    require_agreement(ranks, plan)
    training = plan.config.training
    if ranks.rank == 0:
        say_what_is_left_out(training, messages.warn)
    agreed = Interruption()
    connection = RankConnection(ranks, ranks.num_processors, interruption, agreed)
    with contextlib.ExitStack() as at_end:
        resources = at_end.enter_context(compute_resources(plan.compute_plan(), num_workers, messages, agreed))
        group = at_end.enter_context(
            resources.group(num_workers, max_restarts=0, log=messages.say, connection=connection)
        )
        assert isinstance(group, MpiComputeGroup)
        folder = at_end.enter_context(tempfile.TemporaryDirectory(prefix="partrain-bench-"))
        log = MetricsLog(RunPaths(Path(folder)).metrics_path)
        at_end.callback(log.close)
        arrays = resources.arrays
        trainer = Trainer(plan, arrays, log)
        at_end.callback(trainer.update.close)
        messages.say(f"measuring with {ranks.size} ranks")
        mine = _measure_steps(trainer, group, agreed)
        exchange = _measure_exchange(trainer.num_examples, group, ranks)
        # The others sleep meanwhile.
        compute = _measure_compute(trainer, group.local) if ranks.rank == 0 else {}
        everyone = ranks.allgather({"host": socket.gethostname(), "workers": num_workers} | mine)
        return {
            "training": {"name": plan.config.name, "batch_size": trainer.num_examples, "tile": training.tile},
            "ranks": everyone,
            "exchange": exchange,
            "model": _model(plan, trainer, mine, exchange, compute) if ranks.rank == 0 else {},
        }


def _measure_steps(trainer: Trainer, group: MpiComputeGroup, agreed: Interruption) -> dict[str, float]:
    """Make steps; return the medians of their phases in microseconds. `exchange` has the wait for the slowest rank."""
    commands = trainer.commands(group.num_at_once)
    samples: dict[str, list[float]] = {name: [] for name in ("prepare", *PHASES)}
    for number in range(WARM_UP_STEPS + MEASURED_STEPS):
        agreed.check()
        times = trainer.step(group, commands)
        if number >= WARM_UP_STEPS:
            exchange = group.exchanged_at - group.computed_at
            for name in ("prepare", "update", "step"):
                samples[name].append(times[name])
            samples["exchange"].append(exchange)
            samples["compute"].append(times["run"] - exchange)
    return {f"{name}_us": 1e6 * statistics.median(values) for name, values in samples.items()}


def _measure_exchange(num_examples: int, group: MpiComputeGroup, ranks: Communicator) -> dict[str, Any]:
    """Measure the exchange of a step alone: from when all ranks are there until each has everything at its place."""
    command = Command(Operation.GRADIENTS, SplitName.TRAIN, 0, num_examples)
    message = group.step_message(num_examples)
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


def _measure_compute(trainer: Trainer, local: ComputeGroup) -> dict[int, float]:
    """Return the seconds that this rank takes for a number of tiles: powers of 2, and the whole batch."""
    tiling, num_examples = trainer.tiling, trainer.num_examples
    tiles = tiling.num_tiles(num_examples)
    medians = {}
    for number in sorted({*(2**k for k in range(tiles.bit_length()) if 2**k < tiles), tiles}):
        shards = tiling.shards(0, min(number * tiling.tile_size, num_examples), local.num_at_once)
        commands = [Command(Operation.GRADIENTS, SplitName.TRAIN, first, last) for first, last in shards]
        samples = []
        for _ in range(MEASURED_STEPS // 4):
            begin = monotonic()
            local.run(commands)
            samples.append(monotonic() - begin)
        medians[number] = statistics.median(samples)
    return medians


def _model(
    plan: TrainingPlan,
    trainer: Trainer,
    mine: dict[str, float],
    exchange: dict[str, Any],
    compute: dict[int, float],
) -> dict[str, Any]:
    config, network = plan.config, plan.network
    costs = HostCosts(
        network=network,
        tiling=plan.tiling,
        dtype=config.training.dtype,
        serial=mine["prepare_us"] / 1e6,
        compute=compute,
        batch_size=trainer.num_examples,
        update=mine["update_us"] / 1e6,
        pack_s_a_byte=exchange["copying_us"] / 1e6 / exchange["bytes"],
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
        "update_us": mine["update_us"],
        "larger": {"multiply_adds": work, "parameters": parameters},
        "expected": [
            {
                "network": name,
                "batch_size": batch_size,
                "hosts": hosts,
                "link": link.name,
                "bytes": of.num_bytes(batch_size, hosts),
                "step_us": of.step(batch_size, hosts, link) * 1e6,
                "speed_up": of.speed_up(batch_size, hosts, link),
            }
            for name, of in networks.items()
            for batch_size in MODEL_BATCHES
            for link in LINKS
            for hosts in MODEL_HOSTS
        ],
    }
