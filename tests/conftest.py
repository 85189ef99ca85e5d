"""What tests share: the check that a test leaves nothing behind, and the program run as a user would."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import gc
import gzip
import multiprocessing.resource_tracker
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

if TYPE_CHECKING:
    from partrain.parallel.workers.worker import Computation

ROOT = Path(__file__).parents[1]

# A test that runs as long as this hangs: its threads are shown, and pytest ends.
HANG_SECONDS = 300.0
# How long a process may take to be gone once it should be; a second is expected.
GONE_SECONDS = 10.0
# How long a run of a few steps may take; a few seconds are expected.
RUN_SECONDS = 120.0

SHARED_MEMORY = Path("/dev/shm")
# What the arrays' anonymous file is called among a process's open files.
MEMORY_FILE = "memfd:partrain"
# What multiprocessing, and this program, would call a segment or a semaphore.
SEGMENT_PREFIXES = ("psm_", "sem.mp-", "pym-", "partrain")


# ---- processes, as /proc shows them


@dataclasses.dataclass(frozen=True)
class ProcessEntry:
    """A process that has not ended (a zombie has)."""

    pid: int
    parent: int
    session: int
    cpu_ticks: int
    command: str


def list_processes() -> list[ProcessEntry]:
    """Return all processes that run; none on a system without /proc."""
    entries = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            # The second field, the program's name in brackets, may itself hold spaces and brackets.
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if fields[0] not in "ZX":
                ticks = int(fields[11]) + int(fields[12])
                entries.append(ProcessEntry(int(path.name), int(fields[1]), int(fields[3]), ticks, command))
    return entries


def descendants_of(pid: int) -> list[ProcessEntry]:
    """Return the children of a process, their children, and so on."""
    entries = list_processes()
    family = {pid}
    while True:
        more = {e.pid for e in entries if e.parent in family} - family
        if not more:
            return [e for e in entries if e.pid in family - {pid}]
        family |= more


def is_running(pid: int) -> bool:
    """Tell whether a process has not ended yet."""
    return any(entry.pid == pid for entry in list_processes())


def wait_until(condition: Callable[[], Any], what: str, seconds: float = GONE_SECONDS) -> Any:
    """Return the first true value of `condition`; fail if there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)
    return value


# ---- nothing is left behind


@pytest.fixture(scope="session")
def terminal_stderr(request: pytest.FixtureRequest) -> Iterator[IO[str]]:
    """The stderr that pytest was started with, not the one that it gives to tests."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        descriptor = os.dup(2)
    with open(descriptor, "w") as file:
        yield file


@pytest.fixture(autouse=True)
def _nothing_left_behind(terminal_stderr: IO[str], request: pytest.FixtureRequest) -> Iterator[None]:
    """Show where a test hangs; after each test look for what it left."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=terminal_stderr)
    before = _state_of_this_process()
    segments = _segments()
    yield
    faulthandler.cancel_dump_traceback_later()
    assert _state_of_this_process() == before
    assert _segments() <= segments, "shared memory that has a name"
    _wait_for_the_end_of(_processes_of_tests, "processes")
    assert not _open_files("run.lock"), "the lock of a run"
    if _open_files(MEMORY_FILE):
        # Arrays live as long as somebody refers to them; pytest still holds what it gave to the test.
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
    """Return what this process has open under a file name."""
    found = []
    for path in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(path).removesuffix(" (deleted)"))
    return [target for target in found if Path(target).name == name]


def _processes_of_tests() -> list[ProcessEntry]:
    tracker = getattr(multiprocessing.resource_tracker._resource_tracker, "_pid", None)
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return [entry for entry in descendants_of(os.getpid()) if entry.pid not in (tracker, server)]


def _wait_for_the_end_of(processes: Callable[[], list[ProcessEntry]], what: str) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while left := processes():
        if time.monotonic() > deadline:
            for entry in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry.pid, signal.SIGKILL)
            pytest.fail(f"{what} were left and had to be killed: {left}")
        time.sleep(0.01)


# ---- the program, as a user runs it


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run of the program ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def run(self) -> Path:
        """The run's directory: the last line of stdout."""
        assert self.exit_code == 0, self.stderr
        return Path(self.stdout.splitlines()[-1])


class PartrainProcess:
    """`python -m partrain` in a session of its own, so that all of its processes can be found.

    Parameters
    ----------
    arguments : the command line after `partrain`.
    folder : where it runs, and where what it says is kept.
    env : variables that it gets besides those of the test; None takes one away.
    wrapper : a command that runs the program, such as nohup.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: Mapping[str, str | None] | None = None,
        wrapper: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "partrain"),
        stderr: int | None = None,
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **(env or {})}
        self._folder = folder
        self._number = len(list(folder.glob("said-*")))
        with open(self._file("out"), "wb") as out, open(self._file("err"), "wb") as err:
            self.popen = subprocess.Popen(
                [*wrapper, *program, *arguments],
                cwd=folder,
                env={k: v for k, v in environment.items() if v is not None},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err if stderr is None else stderr,
                start_new_session=True,
            )

    def _file(self, kind: str) -> Path:
        return self._folder / f"said-{self._number}.{kind}"

    @property
    def stdout(self) -> str:
        """What it wrote to stdout so far."""
        return self._file("out").read_text()

    @property
    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return self._file("err").read_text()

    def processes(self) -> list[ProcessEntry]:
        """Return all of its processes, whoever is their parent by now."""
        return [entry for entry in list_processes() if entry.session == self.popen.pid]

    def workers(self) -> list[ProcessEntry]:
        """Return the workers: the processes that the fork server has forked."""
        entries = self.processes()
        servers = {e.pid for e in entries if e.parent == self.popen.pid and "forkserver" in e.command}
        return [entry for entry in entries if entry.parent in servers]

    def wait_for(self, text: str) -> None:
        """Wait until it has said `text` on stderr."""

        def said() -> bool:
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode}:\n{self.stderr}"
            return text in self.stderr

        wait_until(said, f"{text!r} on stderr", RUN_SECONDS)

    def wait_for_training(self) -> Path:
        """Wait until its run in the folder `runs` has logged a step; return the run's directory."""

        def logged() -> list[Path]:
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode}:\n{self.stderr}"
            return [path for path in self._folder.glob("runs/*/metrics.jsonl") if path.stat().st_size]

        path: Path = wait_until(logged, "a step in the metrics", RUN_SECONDS)[0]
        return path.parent

    def send(self, number: int, *, to_group: bool = False) -> None:
        """Send a signal to the program, or to all processes of its group, as the terminal does."""
        if to_group:
            os.killpg(self.popen.pid, number)
        else:
            self.popen.send_signal(number)

    def wait(self, timeout: float = RUN_SECONDS) -> Result:
        """Wait for its end; then nothing of it may be left. One that hangs shows where."""
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGABRT)
            self.popen.wait(GONE_SECONDS)
            pytest.fail(f"it did not end within {timeout:g} s:\n{self.stderr}")
        _wait_for_the_end_of(self.processes, "processes of the run")
        return Result(self.popen.returncode, self.stdout, self.stderr)

    def kill(self) -> None:
        """End all of its processes at once, if there are any."""
        for entry in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGKILL)
        self.popen.wait()


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
    """Run the program within this process: quicker, and a traceback of it is one of the test."""
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


def call_without_numba(*arguments: object) -> int:
    """Run the program in a process of its own, in this folder; return its exit code, if it has not imported Numba."""
    program = (
        "import sys; from partrain.interface.command_line import main; code = main(sys.argv[1:]); "
        "found = sorted(name for name in sys.modules if name.split('.')[0] in ('numba', 'llvmlite')); "
        "sys.exit(f'Numba was imported: {found[:3]}' if found else code + 100)"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode >= 100, result.stderr
    return result.returncode - 100


# ---- what it is run on

SMALL_CONFIG: dict[str, Any] = {
    "name": "small",
    "data": {"name": "synthetic-digits", "train_examples": 200, "validation_examples": 40},
    "network": [
        {"conv": {"filters": 2, "kernel": 5}},
        "relu",
        {"max_pool": {"window": 4}},
        "flatten",
        {"dense": {"units": 10}},
    ],
    "training": {"epochs": 1, "batch_size": 20, "tile": 3, "optimizer": {"lr": 0.01}},
}


# For runs that a test ends: it would go on for hours.
ENDLESS = {
    "data.train_examples": 2000,
    "training.epochs": 100_000,
    "logging": {"every_steps": 1, "evaluate_every_epochs": None},
}


def write_small_config(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a configuration that trains in about a second: 200 examples, 10 steps of 7 tiles.

    Parameters
    ----------
    folder : where to write `small.yaml`.
    changes : values by dotted key.
    """
    mapping: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SMALL_CONFIG))
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        section = mapping
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    # Pictures take longer to draw than all the rest.
    mapping["logging"] = {"plots": False} | mapping.get("logging", {})
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Path]:
    """Write the small configuration, with changes by dotted key, into the test's folder."""

    def write(changes: Mapping[str, Any] | None = None) -> Path:
        return write_small_config(tmp_path, changes)

    return write


def write_idx(path: Path, array: NDArray[np.uint8]) -> Path:
    """Write an IDX file; gzipped if its name says so."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_idx_folder(
    folder: Path,
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> Path:
    """Write images and labels of two splits under MNIST's file names."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


def noise_examples(num_examples: int, seed: int = 0, size: int = 28) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images of noise, and labels of which each of the ten stands among the first ten."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    images = rng.integers(0, 256, (num_examples, size, size), dtype=np.uint8)
    labels = rng.integers(0, 10, num_examples, dtype=np.uint8)
    labels[:10] = np.arange(10)[:num_examples]
    return images, labels


@pytest.fixture
def noise_folder(tmp_path: Path) -> Path:
    """A folder of IDX files with 60 training and 20 test examples."""
    return write_idx_folder(tmp_path / "noise", noise_examples(60), noise_examples(20, seed=1))


# ---- a computation without a run


@pytest.fixture
def make_computation() -> Iterator[Callable[..., Computation]]:
    """Return what makes a computation on noise: a small network with every kind of layer, initial parameters."""
    from partrain.config.yaml_file import parse_config
    from partrain.kernels.compiler.kernel_set import kernel_set
    from partrain.kernels.compiler.options import load
    from partrain.network.network import Network
    from partrain.network.normalisation import Normalisation
    from partrain.parallel.array_plan import exchange_specs
    from partrain.parallel.workers.worker import Computation
    from partrain.system.shared_arrays import ArraySpec, SharedArrays

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
            num_test: int = 50,
            size: int = 12,
            more_layers: Mapping[int, Any] | None = None,
        ) -> Computation:
            network_layers = layers.copy()
            for place, layer in sorted((more_layers or {}).items()):
                network_layers.insert(place, layer)
            mapping = {"data": {"name": "synthetic-digits"}, "network": network_layers}
            network = Network(parse_config(mapping, source="test").network, (1, size, size), 10)
            examples = {"train": noise_examples(60, 0, size), "test": noise_examples(num_test, 1, size)}
            specs = exchange_specs(network, batch_size, tile, dtype, max(60, num_test, batch_size))
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
            load(kernel_set(kernels).for_training(augments=True, drops=True), dtype)
            return Computation(network, kernels, dtype, tile, Normalisation((127.5,), (74.0,)), arrays)

        yield make
