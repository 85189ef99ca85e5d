"""Two hosts for real: two network namespaces that a cable of the kernel's joins, and a job over TCP."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from partrain.store.run_directory import RunDirectory
from tests.mpi_processes import MPIEXEC, isolated_jobs, needs_mpi
from tests.program import PartrainProcess
from tests.small_run import ENDLESS
from tests.whole_runs import Runs, outcome, write_config

pytestmark = [
    needs_mpi,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(
        shutil.which("ip") is None or shutil.which("unshare") is None, reason="ip (package iproute2) is missing"
    ),
]

# In place of ssh: it is called with a host and a command, and runs that in the namespace that plays the host.
AGENT = """#!/bin/sh
shift
exec ip netns exec {namespace} unshare --uts sh -c "hostname host-b; $*"
"""


class TwoHosts:
    """Namespaces a and b, with an address each."""

    def __init__(self, folder: Path) -> None:
        self.environment: dict[str, str] = {}
        name = f"partrain-{os.getpid()}"
        self.a, self.b = f"{name}-a", f"{name}-b"
        # Not longer than the 15 letters that the name of an interface may have.
        self.cables = {self.a: f"pt{os.getpid()}a", self.b: f"pt{os.getpid()}b"}
        subnet = f"10.{os.getpid() // 256 % 256}.{os.getpid() % 256}"
        self.addresses = {self.a: f"{subnet}.1", self.b: f"{subnet}.2"}
        self.agent = folder / "agent"
        self.agent.write_text(AGENT.format(namespace=self.b))
        self.agent.chmod(0o700)

    def make(self) -> None:
        for namespace in (self.a, self.b):
            ip("netns", "add", namespace)
        ip("link", "add", self.cables[self.a], "type", "veth", "peer", "name", self.cables[self.b])
        for namespace, cable in self.cables.items():
            ip("link", "set", cable, "netns", namespace)
            ip("-n", namespace, "addr", "add", f"{self.addresses[namespace]}/24", "dev", cable)
            ip("-n", namespace, "link", "set", cable, "up")
            ip("-n", namespace, "link", "set", "lo", "up")

    def remove(self) -> None:
        for namespace in (self.a, self.b):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    def launcher(self) -> list[str]:
        """Return what stands before the program: mpiexec on host a, a rank on each of both."""
        assert MPIEXEC is not None
        on_a = ["ip", "netns", "exec", self.a, "unshare", "--uts", "sh", "-c", 'hostname host-a; exec "$@"', "sh"]
        agent = ["--prtemca", "plm_ssh_agent", str(self.agent)]
        return [
            *on_a,
            MPIEXEC,
            "-n",
            "2",
            "--map-by",
            "ppr:1:node",
            "--host",
            ",".join(self.addresses.values()),
            *agent,
        ]

    def received_bytes(self) -> int:
        """Return how many bytes have come to host a."""
        path = f"/sys/class/net/{self.cables[self.a]}/statistics/rx_bytes"
        return int(ip("netns", "exec", self.a, "cat", path))

    def processes_on_b(self) -> list[int]:
        return [int(word) for word in ip("netns", "pids", self.b).split()]


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    hosts = TwoHosts(tmp_path)
    try:
        hosts.make()
    except subprocess.CalledProcessError as error:
        hosts.remove()
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    with isolated_jobs() as hosts.environment:
        yield hosts
        hosts.remove()


def test_two_hosts_have_the_bits_of_one_and_lose_nothing_when_one_dies(
    two_hosts: TwoHosts, start_partrain: Callable[..., PartrainProcess], tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = outcome(Runs(alone).train())
    words = ("--config", write_config(tmp_path), "--run-dir", "run", "--workers", 1, "--engine", "mpi")
    result = start_partrain(*words, wrapper=two_hosts.launcher(), env=two_hosts.environment).wait()
    assert (result.exit_code, result.stdout) == (0, "run\n"), result.stderr
    assert outcome(tmp_path / "run") == expected
    assert two_hosts.received_bytes() > 20_000

    words = ("--config", write_config(tmp_path, ENDLESS), "--runs-dir", "runs", "--workers", 1, "--engine", "mpi")
    process = start_partrain(*words, wrapper=two_hosts.launcher(), env=two_hosts.environment)
    run = process.wait_for_training()
    for pid in two_hosts.processes_on_b():
        os.kill(pid, signal.SIGKILL)
    # What Open MPI's mpiexec says of it differs, and its exit code can be 0: neither is looked at.
    assert "runs/" not in process.wait(50).stdout
    assert RunDirectory.open(run).status() == "interrupted"
