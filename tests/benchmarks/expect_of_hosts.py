"""Measure two ranks on this machine several times, and print what README says of more hosts, as Markdown.

    python tests/benchmarks/expect_of_hosts.py [--rounds 5] [--config configs/mnist.yaml]

Each round is `mpiexec -n 2 partrain bench --engine mpi --workers 1`, with the largest batch of the table, so that the
model knows the time of every number of tiles in it. Every figure is the median over the rounds, those of the model too.
Nothing else should run on the machine: two ranks with a worker each keep two processors busy.
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

from partrain.bench.ranks import MODEL_BATCHES
from partrain.config.reader import read_config

ROOT = Path(__file__).resolve().parents[2]
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
    return "\n".join(lines)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--config", default=str(ROOT / "configs/mnist.yaml"))
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        config = with_batch(options.config, max(MODEL_BATCHES), Path(name))
        for number in range(options.rounds):
            rounds.append(measure(config))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(described(rounds))


if __name__ == "__main__":
    main()
