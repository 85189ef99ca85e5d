"""Measure two hosts against one: two network namespaces, joined by a link of a given rate and delay. Needs root.

    python tests/benchmarks/two_hosts.py [--rounds 5] [--config configs/mnist.yaml]

Each host has one worker, so it takes two processors in all, and these should be two cores: hosts that share one slow
each other down. A round trains on one host, then on two; what is printed are medians over the rounds, of the time per
step without evaluations and saves. The link's own round trip and rate are measured, too, and with them the model of
`partrain bench --engine mpi` predicts the same: its computation takes as long as that of both ranks at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from partrain.bench.host_model import HostCosts, Link
from partrain.config.reader import read_config
from partrain.training.plan import plan_training
from tests.benchmarks.expect_of_hosts import measure as measure_ranks
from tests.benchmarks.expect_of_hosts import with_batch
from tests.benchmarks.shaped_link import shaped_link
from tests.end_to_end.test_mpi_hosts import TwoHosts, ip

ROOT = Path(__file__).resolve().parents[2]
# Rate in Gbit/s, delay in µs, batch size, steps: some seconds each.
MEASURED = ((1.0, 50, 512, 200), (1.0, 50, 2048, 60), (0.1, 200, 2048, 40))
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

# Sends to the other host, and says the round trip of a byte in seconds, and the bytes per second of 32 MiB.
RECEIVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 7000))
print("listening", flush=True)
peer = server.accept()[0]
for _ in range(200):
    peer.sendall(peer.recv(1))
left = 2**25
while left:
    left -= len(peer.recv(min(left, 2**20)))
peer.sendall(b"1")
"""
SEND = """
import socket, statistics, sys, time
peer = socket.create_connection((sys.argv[1], 7000))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
times = []
for _ in range(200):
    began = time.perf_counter()
    peer.sendall(b"1")
    peer.recv(1)
    times.append(time.perf_counter() - began)
began = time.perf_counter()
peer.sendall(bytes(2**25))
peer.recv(1)
print(statistics.median(times), 2**25 / (time.perf_counter() - began))
"""


class ShapedHosts(TwoHosts):
    """Two hosts whose link has a rate and a delay."""

    @contextlib.contextmanager
    def joined(self, gbit_per_s: float, delay_us: float) -> Iterator[None]:
        """Join the hosts within the block."""
        for namespace in (self.a, self.b):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        try:
            with shaped_link(self.addresses, 1e9 * gbit_per_s, 1e-6 * delay_us):
                yield
        finally:
            self.remove()

    def link(self) -> Link:
        """Return the link that a TCP connection has."""
        address = self.addresses[self.b]
        receiver = ["ip", "netns", "exec", self.b, sys.executable, "-c", RECEIVE, address]
        sender = ["ip", "netns", "exec", self.a, sys.executable, "-c", SEND, address]
        with subprocess.Popen(receiver, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            ended = subprocess.run(sender, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        round_trip_s, bytes_per_second = map(float, ended.stdout.split())
        return Link("measured", round_trip_s / 2, bytes_per_second)


def predicted(config: str, batch: int, link: Link, folder: Path) -> float:
    """Return how many times as fast two hosts are as one, by the model, with the times of ranks on this machine."""
    path = with_batch(config, batch, folder)
    facts = measure_ranks(path)
    model, plan = facts["model"], plan_training(read_config(path), say=lambda text: None, warn=lambda text: None)
    compute, update = (
        {int(tiles): us / 1e6 for tiles, us in model[name].items()} for name in ("compute_us", "update_us")
    )
    one = HostCosts(
        network=plan.network,
        groups=plan.groups,
        training=plan.config.training,
        tiling=plan.tiling,
        serial=model["serial_us"] / 1e6,
        compute=compute,
        update=update,
        updated=plan.network.parameters.size,
        copy_s_per_byte=model["copy_ns_per_byte"] / 1e9,
    )
    # Both ranks compute at the same time, and slow each other down.
    together = max(rank["compute_us"] for rank in facts["ranks"]) / 1e6
    two = replace(one, work=together / compute[plan.tiling.num_tiles(batch) // 2])
    return one.step(batch, 1, link) / two.step(batch, 2, link)


def step_ms(launcher: Sequence[str], words: Sequence[str], folder: Path) -> float:
    """Train with this launcher; return the milliseconds of a step."""
    run = folder / f"run-{time.monotonic_ns()}"
    command = [*launcher, sys.executable, "-m", "partrain", *words, "--run-dir", str(run), "--workers", "1", "-q"]
    subprocess.run(command, env=os.environ | ROOT_MAY, check=True, stdout=subprocess.DEVNULL, timeout=300)
    summary = json.loads((run / "summary.json").read_text())
    return float(1000 * summary["train_seconds"] / summary["steps"])


def measure(hosts: ShapedHosts, point: tuple[float, float, int, int], rounds: int, config: str, folder: Path) -> str:
    """Return a line of results for one link and batch size."""
    gbit_per_s, delay_us, batch, steps = point
    changes = {"batch_size": batch, "max_steps": steps, "epochs": 100, "schedule": "{name: constant}"}
    words = ["--config", config]
    for name, value in changes.items():
        words += ["--set", f"training.{name}={value}"]
    words += ["--set", "logging.every_steps=10", "--set", "logging.evaluate_every_epochs=null"]
    one: list[float] = []
    two: list[float] = []
    with hosts.joined(gbit_per_s, delay_us):
        link = hosts.link()
        for _ in range(rounds):
            one.append(step_ms((), words, folder))
            two.append(step_ms(hosts.launcher(), [*words, "--engine", "mpi"], folder))
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    measured = f"{2e6 * link.latency_s:.0f} µs round trip, {8e-9 * link.bytes_per_second:.3f} Gbit/s"
    return (
        f"| {gbit_per_s:g} Gbit/s, {delay_us:g} µs ({measured}) | {batch} | {statistics.median(one):.1f} | "
        f"{statistics.median(two):.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{predicted(config, batch, link, folder):.2f} |"
    )


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--config", default=str(ROOT / "configs/mnist.yaml"))
    parser.add_argument("--point", type=int, choices=range(len(MEASURED)), help="only this line of the table")
    options = parser.parse_args()
    print(f"{socket.gethostname()}, {options.rounds} rounds\n")
    print("| link | batch | one host, ms per step | two hosts | times faster | predicted |\n|---|---|---|---|---|---|")
    points = MEASURED if options.point is None else MEASURED[options.point : options.point + 1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = ShapedHosts(folder)
        for point in points:
            print(measure(hosts, point, options.rounds, options.config, folder), flush=True)


if __name__ == "__main__":
    main()
