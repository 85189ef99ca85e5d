"""Measure two ranks on this machine several times, and print what README says of more hosts, as Markdown.

    python tests/benchmarks/expect_of_hosts.py [--rounds 5] [--config configs/mnist.yaml]
    python tests/benchmarks/expect_of_hosts.py --times 50 640 36000 100 4500

Each round is `mpiexec -n 2 partrain bench --engine mpi --workers 1`, with the largest batch of the table, so that the
model knows the time of every number of tiles in it. Every figure is the median over the rounds, those of the model too.
Nothing else should run on the machine: two ranks with a worker each keep two processors busy. With `--times`, nothing
is measured: the tables follow from the given times of one host with one worker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from partrain.bench.host_model import HostCosts
from partrain.bench.ranks import MODEL_BATCHES, predict
from partrain.config.reader import read_config
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.workers.tiles import Tiling

ROOT = Path(__file__).resolve().parents[2]
# Where nothing is measured.
COPY_S_PER_BYTE = 1e-10
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def with_batch(config: str, batch_size: int, folder: Path) -> str:
    """Write a copy of a configuration with another batch size; return its path."""
    path = folder / Path(config).name
    path.write_text(read_config(config, [f"training.batch_size={batch_size}"]).to_yaml())
    return str(path)


def measure(config: str) -> dict[str, Any]:
    """Return the facts of one round."""
    launcher = [str(Path(sys.executable).with_name("mpiexec")), "-n", "2", "--bind-to", "none", "--map-by"]
    words = [sys.executable, "-m", "partrain", "bench", "--engine", "mpi", "--workers", "1", "--config", config]
    command = [*launcher, ":OVERSUBSCRIBE", *words, "--json", "-q"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | ROOT_MAY, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(ended.stdout)
    return facts


def tables_of(config: str, times_us: list[float]) -> str:
    """Return the tables of the model for these times of one host, in the order of `--times`, and MNIST's images."""
    resolved = read_config(config)
    training, network = resolved.training, Network(resolved.network, (1, 28, 28), 10)
    tiling = Tiling(training.tile, training.block)
    serial, first, last, update_first, update_last = (us / 1e6 for us in times_us)
    smallest, largest = (tiling.num_tiles(batch) for batch in (min(MODEL_BATCHES), max(MODEL_BATCHES)))
    costs = HostCosts(
        network=network,
        groups=ParameterGroups.of(network, training.optimizer),
        training=training,
        tiling=tiling,
        serial=serial,
        compute={1: first / smallest, smallest: first, largest: last},
        update={smallest: update_first, largest: update_last},
        updated=network.parameters.size,
        copy_s_per_byte=COPY_S_PER_BYTE,
    )
    return "\n".join(tables([{"model": predict(costs, resolved)}]))


def described(rounds: list[dict[str, Any]]) -> str:
    """Return the measured figures, in a line for each, and the tables of the model."""

    def over(value: Callable[[dict[str, Any]], float]) -> str:
        values = [value(facts) for facts in rounds]
        return f"{statistics.median(values):.0f} µs (of rounds: {min(values):.0f} to {max(values):.0f})"

    lines = [
        f"exchange of a step alone: {over(lambda facts: facts['exchange']['median_us'])}",
        *(
            f"{name}, {tiles} tiles: {over(lambda facts, t=tiles, k=key: facts['model'][k][t])}"
            for name, key in (("computing", "compute_us"), ("update", "update_us"))
            for tiles in rounds[0]["model"][key]
        ),
    ]
    return "\n".join([*lines, *tables(rounds)])


def tables(rounds: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the model's tables."""
    lines: list[str] = []
    speed_ups: dict[tuple[str, int, str], dict[int, list[float]]] = {}
    for facts in rounds:
        for row in facts["model"]["expected"]:
            of_hosts = speed_ups.setdefault((row["network"], row["batch_size"], row["link"]), {})
            of_hosts.setdefault(row["hosts"], []).append(row["speed_up"])
    links = list(dict.fromkeys(link for _, _, link in speed_ups))
    hosts = ", ".join(str(number) for number in next(iter(speed_ups.values())))
    for network in dict.fromkeys(name for name, _, _ in speed_ups):
        lines += ["", f"| {network}, batch | {' | '.join(f'{hosts} hosts at {link}' for link in links)} |"]
        lines.append("|---" * (1 + len(links)) + "|")
        for batch in dict.fromkeys(size for name, size, _ in speed_ups if name == network):
            cells = [
                ", ".join(f"{statistics.median(values):.1f}" for values in speed_ups[network, batch, link].values())
                for link in links
            ]
            lines.append(f"| {batch} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--config", default=str(ROOT / "configs/mnist.yaml"))
    parser.add_argument(
        "--times",
        type=float,
        nargs=5,
        metavar="US",
        help=f"µs of one host: planning a step; computing {min(MODEL_BATCHES)} and {max(MODEL_BATCHES)} examples; "
        "updating from as many",
    )
    options = parser.parse_args()
    if options.times:
        print(tables_of(options.config, options.times))
        return
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        config = with_batch(options.config, max(MODEL_BATCHES), Path(name))
        for number in range(options.rounds):
            rounds.append(measure(config))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(described(rounds))


if __name__ == "__main__":
    main()
