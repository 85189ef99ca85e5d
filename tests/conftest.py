"""Fixtures that tests share: the check that a test leaves nothing behind, the program, and what it is run on."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing.resource_tracker
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pytest

from partrain.system.machine import available_processors
from tests.browser import browser_processes
from tests.noise_data import noise_examples, write_idx_folder
from tests.processes import ProcessEntry, descendants_of, wait_for_the_end_of, wait_until
from tests.program import ROOT, RUN_SECONDS, PartrainProcess, Result
from tests.program_server import program_server_pid
from tests.small_run import write_small_config

if TYPE_CHECKING:
    from partrain.parallel.workers.tile_computer import Computation

# A test that runs for this long hangs: the tracebacks of its threads are printed, and pytest ends.
HANG_SECONDS = 300.0
SHARED_MEMORY = Path("/dev/shm")
# The name of the shared arrays' anonymous file among the open files of a process.
MEMORY_FILE = "memfd:partrain"
# The names that multiprocessing and partrain give to segments and semaphores.
SEGMENT_PREFIXES = ("psm_", "sem.mp-", "pym-", "partrain")


# ---- how pytest runs

# Directories and files with the longest tests. They run first, so that no worker waits for another one in the end.
LONGEST = ("end_to_end", "bench", "html_report", "test_run_plots.py", "test_example_ranking.py", "test_options.py")
# pytest-xdist starts at most this many processes; each takes 300 MB. There is one more than processors, because many
# tests wait.
MAX_PROCESSES = 8


def pytest_configure() -> None:
    """Receive SIGINT, which a shell ignores for commands in the background: tests raise it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run tests that are named one by one, or whose output is not captured, in pytest's own process."""
    if config.option.capture == "no" or all("::" in argument for argument in config.args):
        return 0
    return min(MAX_PROCESSES, available_processors() + 1)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels that are not in the cache before several processes need them at the same time."""
    if session.config.option.numprocesses and not hasattr(session.config, "workerinput"):
        program = "from tests.program_server import load_kernels; load_kernels()"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first."""
    items.sort(key=lambda item: not set(LONGEST) & set(item.path.parts))


# ---- nothing is left behind


@pytest.fixture(scope="session")
def terminal_stderr(request: pytest.FixtureRequest) -> Iterator[IO[str]]:
    """The stderr that pytest was started with, not the one that tests get."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        descriptor = os.dup(2)
    with open(descriptor, "w") as file:
        yield file


@pytest.fixture(autouse=True)
def _nothing_left_behind(terminal_stderr: IO[str], request: pytest.FixtureRequest) -> Iterator[None]:
    """Show where a test hangs; check that it left no process, segment, lock or changed state of this process."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=terminal_stderr)
    before = _state_of_this_process()
    segments = _segments()
    yield
    faulthandler.cancel_dump_traceback_later()
    assert _state_of_this_process() == before
    wait_until(lambda: _segments() <= segments, "that no shared memory has a name")
    wait_for_the_end_of(_processes_of_tests, "processes")
    assert not _open_files("run.lock"), "the lock of a run"
    if _open_files(MEMORY_FILE):
        # Arrays live as long as something refers to them; pytest still refers to the fixtures of the test.
        request.node.funcargs.clear()
        gc.collect()
    assert not _open_files(MEMORY_FILE), "shared memory of this process"


def _state_of_this_process() -> dict[str, Any]:
    numbers = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    return {
        "environment": {k: v for k, v in os.environ.items() if k.startswith("PARTRAIN_") or "NUM_THREADS" in k},
        "signal handlers": {int(number): signal.getsignal(number) for number in numbers},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "main program": sys.modules["__main__"],
    }


def _segments() -> set[str]:
    there = os.listdir(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else []
    return {name for name in there if name.startswith(SEGMENT_PREFIXES)}


def _open_files(name: str) -> list[str]:
    """Return the paths of the open files of this process that have this name."""
    found = []
    for path in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(path).removesuffix(" (deleted)"))
    return [target for target in found if Path(target).name == name]


def _processes_of_tests() -> list[ProcessEntry]:
    tracker = getattr(multiprocessing.resource_tracker._resource_tracker, "_pid", None)
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    lasting = {tracker, server, program_server_pid(), *(entry.pid for entry in browser_processes())}
    return [entry for entry in descendants_of(os.getpid()) if entry.pid not in lasting]


# ---- the program, as a user runs it


@pytest.fixture
def start_partrain(tmp_path: Path) -> Iterator[Callable[..., PartrainProcess]]:
    """Start the program with these arguments, and return without waiting for it."""
    started: list[PartrainProcess] = []

    def start(*arguments: object, **options: Any) -> PartrainProcess:
        started.append(PartrainProcess([str(argument) for argument in arguments], tmp_path, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def run_partrain(start_partrain: Callable[..., PartrainProcess]) -> Callable[..., Result]:
    """Run the program with these arguments to its end."""

    def run(*arguments: object, timeout: float = RUN_SECONDS, **options: Any) -> Result:
        return start_partrain(*arguments, **options).wait(timeout)

    return run


@pytest.fixture
def call_partrain(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the program within this process: faster than a process of its own, and tests can patch it."""
    from partrain.interface.command_line import main

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            exit_code = main([str(argument) for argument in arguments])
        except SystemExit as ending:  # argparse's
            exit_code = int(ending.code or 0)
        said = capsys.readouterr()
        return Result(exit_code, said.out, said.err)

    return call


# ---- what it is run on


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Path]:
    """Write the small configuration, with changes by dotted key, into the test's directory."""

    def write(changes: Mapping[str, Any] | None = None) -> Path:
        return write_small_config(tmp_path, changes)

    return write


@pytest.fixture
def noise_folder(tmp_path: Path) -> Path:
    """A directory of IDX files with 60 training and 20 test examples."""
    return write_idx_folder(tmp_path / "noise", noise_examples(60), noise_examples(20, seed=1))


# ---- a computation without a run


@pytest.fixture
def make_computation() -> Iterator[Callable[..., Computation]]:
    """Return what makes a computation on noise: a small network with every kind of layer, initial parameters."""
    from partrain.config.reader import parse_config
    from partrain.config.schema.optimizer import Optimizer
    from partrain.network.network import Network
    from partrain.network.normalisation import Normalisation
    from partrain.network.parameter_groups import ParameterGroups
    from partrain.parallel.array_plan import exchange_specs, planned_specs
    from partrain.parallel.workers.tile_computer import Computation
    from partrain.parallel.workers.tiles import Tiling
    from partrain.system.shared_arrays import ArraySpec, SharedArrays
    from tests.loaded_kernels import load_all_kernels

    layers: list[Any] = [
        {"conv": {"filters": 3, "kernel": 3, "stride": 2}},
        "relu",
        {"conv": {"filters": 2, "kernel": 2}},
        {"max_pool": {"window": 2}},
        "flatten",
        {"dense": {"units": 12}},
        "relu",
        {"dense": {"units": 10}},
    ]
    with contextlib.ExitStack() as at_end:

        def make(
            *,
            kernels: str = "fast",
            dtype: str = "float32",
            batch_size: int = 20,
            tile: int = 3,
            block: int | None = None,
            num_test: int = 50,
            size: int = 12,
            more_layers: Mapping[int, Any] | None = None,
            plans_steps: bool = False,
        ) -> Computation:
            network_layers = layers.copy()
            for place, layer in sorted((more_layers or {}).items()):
                network_layers.insert(place, layer)
            mapping = {"data": {"name": "synthetic-digits"}, "network": network_layers}
            network = Network(parse_config(mapping, source="test").network, (1, size, size), 10)
            examples = {"train": noise_examples(60, 0, size), "test": noise_examples(num_test, 1, size)}
            tiling, groups = Tiling(tile, block), ParameterGroups(network.parameters, Optimizer())
            specs = exchange_specs(network, batch_size, tiling, dtype, max(60, num_test, batch_size))
            if plans_steps:
                specs |= planned_specs(network, groups, kernels, batch_size)
            for name, (images, _) in examples.items():
                specs[f"{name}.images"] = ArraySpec((len(images), 1, size, size), "|u1")
                specs[f"{name}.labels"] = ArraySpec((len(images),), "<i8")
            arrays = SharedArrays(specs, {})
            at_end.callback(arrays.close)
            for name, (images, labels) in examples.items():
                arrays[f"{name}.images"][:, 0] = images
                arrays[f"{name}.labels"][:] = labels
            arrays["parameters"][:] = network.parameters.initial_values(0, dtype)
            arrays["indices"][:] = (np.arange(batch_size) * 7 + 3) % 60
            load_all_kernels(kernels, dtype)
            normalisation = Normalisation((127.5,), (74.0,))
            return Computation(network, kernels, dtype, tiling, normalisation, arrays, groups=groups)

        yield make
