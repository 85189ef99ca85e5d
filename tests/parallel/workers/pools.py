from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

from partrain.data.split_name import SplitName
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.pool import WorkerPool
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling
from tests.processes import is_running, list_processes, wait_until

TRAIN, TEST = SplitName.TRAIN, SplitName.TEST
# A command that no worker can carry out: the computation has no examples for validation.
UNCOMPUTABLE = Command(Operation.GRADIENTS, SplitName.VALIDATION, 0, 3)
REPLACED = r"^worker \d was killed by SIGKILL; starting a replacement$"


def batch(num_shards: int) -> list[Command]:
    return [Command(Operation.GRADIENTS, TRAIN, first, last) for first, last in Tiling(3).shards(0, 20, num_shards)]


def results(group: Any, computation: Computation, commands: list[Command]) -> dict[str, bytes]:
    """Return the bytes of all that the commands make, written over what was there."""
    names = [n for n in computation.arrays if n in ("tile_sums", "losses", "predictions") or n.startswith("dense")]
    for name in names:
        computation.arrays[name][...] = -77
    group.run(commands)
    return {name: computation.arrays[name].tobytes() for name in names}


class Pools:
    """Makes pools, keeps what they log, and closes them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.log_line: Callable[[str], object] = self.log.append
        self._pools: list[WorkerPool] = []

    def start(
        self, num_workers: int, computation: Computation, *, max_restarts: int = 8, num_processors: int = 64
    ) -> WorkerPool:
        pool = WorkerPool(
            num_workers, computation, max_restarts=max_restarts, log=self.log_line, num_processors=num_processors
        )
        self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:
            pool.close()


def server_pid() -> int:
    pid: int | None = forkserver._forkserver._forkserver_pid
    assert pid is not None
    return pid


def worker_pids(pool: WorkerPool) -> list[int]:
    return [pid for pid in pool.pids if pid != server_pid()]


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), f"the end of process {pid}")


def cpu_ticks(pid: int) -> int:
    return next((entry.cpu_ticks for entry in list_processes() if entry.pid == pid), 0)
