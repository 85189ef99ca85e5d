"""Train on emulated processors, and compare the bits with this machine's: `python tests/other_processors.py`.

Needs Linux on x86-64 with Debian's apt-get and dpkg, and no privileges. qemu's user mode runs the unmodified program:
on arm64 with Debian's Python and PyPI's wheels, on other x86-64 processors with this machine's Python. The golden
digests must be those of the file; for each configuration and number of workers, a run of some steps must end with the
parameters of this machine's run; and each processor resumes a run that the other one started, and verifies all of it.

Everything that is downloaded or compiled is kept and used again; compiling the kernels takes an emulated processor
about five minutes. Exits with 1 if any bits differ. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shlex
import shutil
import signal
import site
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from partrain.data.catalog import load_named
from partrain.data.split_name import SplitName
from partrain.errors import PartrainError
from partrain.system.cache_directories import user_cache_directory

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = ("configs/mnist.yaml", "configs/lenet5.yaml")
WORKERS = (0, 2)
ARM64 = "arm64"
# Debian's packages that hold a Python on which the wheels run.
PACKAGES = ("python3", "libstdc++6")
# The end of training evaluates all test examples, which would take an emulated processor minutes.
TEST_EXAMPLES = 100
VALIDATION_EXAMPLES = 100
# A command may take this long; with kernels to compile, it takes minutes.
COMMAND_SECONDS = 3600.0


class Failed(Exception):
    """A command failed, or something that it needs is not there."""


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def call(
    words: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path = ROOT,
    exit_codes: Sequence[int] = (0,),
) -> str:
    """Run a command, which ends with one of the exit codes; return its output without the last newline."""
    command = [str(word) for word in words]
    variables = os.environ | dict(environment or {})
    try:
        ended = subprocess.run(
            command, env=variables, cwd=folder, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is not installed; this program needs Debian or a descendant of it") from error
    if ended.returncode not in exit_codes:
        raise Failed(f"{shlex.join(command)}\nended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout.rstrip("\n")


@dataclasses.dataclass(frozen=True)
class Processor:
    """A processor that runs the program.

    Parameters
    ----------
    name : what is printed.
    python : the interpreter.
    environment : variables in addition to this process's.
    data : the value of the configuration's `data`.
    runs : the directory of its runs.
    """

    name: str
    python: Path
    environment: Mapping[str, str]
    data: str
    runs: Path

    def train(self, configuration: str, num_workers: int, num_steps: int, name: str) -> Path:
        """Train a new run with a checkpoint after every step, and return its directory."""
        settings = (
            *(f"data={self.data}", f"training.max_steps={num_steps}", "logging={every_steps: 1, plots: false}"),
            "checkpoints={every_steps: 1, keep_last: 100}",
        )
        words = [word for setting in settings for word in ("--set", setting)]
        run = self.runs / f"{self.name}-{Path(configuration).stem}-{name}"
        self._partrain("train", "--config", configuration, "--workers", num_workers, "--run-dir", run, *words)
        return run

    def resume(self, run: Path, num_workers: int, num_steps: int) -> None:
        """Train a run up to a step."""
        self._partrain("resume", run, "--workers", num_workers, "--max-steps", num_steps)

    def verify(self, run: Path, num_workers: int) -> str:
        """Compute all steps of a run again, and return what the program says."""
        return self._partrain("verify", run, "--all", "--workers", num_workers, exit_codes=(0, 1))

    def train_golden(self) -> Iterator[str]:
        """Train the golden trainings; yield a line for each, in which digests that differ are marked."""
        variables = os.environ | dict(self.environment) | {"PYTHONUNBUFFERED": "1"}
        words = [str(self.python), "-m", "tests.golden"]
        with subprocess.Popen(words, env=variables, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield from (line.rstrip("\n") for line in process.stdout)
                process.wait()
            finally:
                process.kill()
        if process.returncode not in (0, 1):
            raise Failed(f"python -m tests.golden ended with {process.returncode} on {self.name}")

    def describe(self) -> str:
        """Return the processor as Numba sees it, and the versions in use."""
        program = (
            "import os, platform, llvmlite, llvmlite.binding as llvm, numba, numpy; "
            "from partrain.kernels.simd.vectors import LANES; "
            "print(platform.machine(), llvm.get_host_cpu_name() + f', {LANES} lanes: Python', "
            "platform.python_version() + ', NumPy', numpy.__version__ + ', Numba', numba.__version__ + ', llvmlite', "
            "llvmlite.__version__ + ',', os.confstr('CS_GNU_LIBC_VERSION'))"
        )
        return call([self.python, "-c", program], self.environment)

    def _partrain(self, command: str, *arguments: object, exit_codes: Sequence[int] = (0,)) -> str:
        words = [self.python, "-m", "partrain", command, *map(str, arguments), "--quiet"]
        return call(words, self.environment, exit_codes=exit_codes)


def digest_of(run: Path) -> str:
    """Return the digest of a completed run's parameters."""
    digest: str = json.loads((run / "summary.json").read_text())["parameters_sha256"]
    return digest


class Cache:
    """What has been downloaded: each part is a directory that appears when it is complete.

    Parameters
    ----------
    path : the directory of the cache; it is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def qemu(self, machine: str) -> Path:
        """Return qemu's user-mode emulator of a machine, statically linked, from Debian's package."""
        directory = self.path / "qemu"
        if not directory.exists():
            say("downloading qemu: Debian's package qemu-user-static (60 MB)")
            part = self._part(directory)
            for package in ("qemu-user-static", "qemu-user"):  # newer Debians have the programs in the second one
                call(["apt-get", "-oAPT::Sandbox::User=root", "download", package], folder=part)
                self._unpack(part, part)
                if list(part.glob("usr/bin/qemu-aarch64*")):
                    break
            part.rename(directory)
        found = sorted(directory.glob(f"usr/bin/qemu-{machine}*"))
        named = [path for path in found if path.name in (f"qemu-{machine}", f"qemu-{machine}-static")]
        if not named:
            raise Failed(f"{directory}: has no qemu-{machine}")
        return named[-1]

    def arm64_root(self) -> Path:
        """Return a directory with Debian's Python for arm64 and all that it needs, as in `/`."""
        directory = self.path / "arm64-debian"
        if not directory.exists():
            say(f"downloading Debian's arm64 packages {', '.join(PACKAGES)} and what they need (35 MB)")
            part = self._part(directory)
            apt = self._part(self.path / "apt")
            configuration = apt / "apt.conf"
            configuration.write_text(
                'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\nAPT::Sandbox::User "root";\n'
                f'Debug::NoLocking "1";\nDir::State "{apt}/state";\nDir::State::status "{apt}/status";\n'
                f'Dir::Cache "{apt}/cache";\n'
            )
            (apt / "status").touch()
            for needed in ("state/lists/partial", "cache/archives/partial"):
                (apt / needed).mkdir(parents=True)
            environment = {"APT_CONFIG": str(configuration)}
            call(["apt-get", "update"], environment)
            call(["apt-get", "install", "-y", "--download-only", "--no-install-recommends", *PACKAGES], environment)
            self._unpack(apt / "cache/archives", part)
            shutil.rmtree(apt)
            part.rename(directory)
        return directory

    def arm64_python(self) -> Path:
        """Return an environment for arm64 with all that partrain needs, in `bin/python`."""
        directory, root = self.path / ARM64, self.arm64_root()
        python = directory / "bin/python"
        binary = (root / "usr/bin/python3").resolve()
        version = binary.name.removeprefix("python")
        loader = next(root.glob("**/ld-linux-aarch64.so.1"))
        libraries = f"{root}/lib/aarch64-linux-gnu:{root}/usr/lib/aarch64-linux-gnu"
        # The loader's own options, and not qemu's -L, which would also map the paths that the program opens.
        emulator = [self.qemu("aarch64"), loader, "--library-path", libraries, "--argv0"]
        write_python(directory, emulator, binary, version)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        requirements = [*project["dependencies"], *project["optional-dependencies"]["privacy"]]
        packages = directory / f"lib/python{version}/site-packages"
        installed = packages / "requirements.json"
        if not installed.exists() or json.loads(installed.read_text()) != requirements:
            part = self._part(packages)
            install_wheels(python, version, requirements, part)
            (part / installed.name).write_text(json.dumps(requirements))
            if packages.exists():
                shutil.rmtree(packages)
            part.rename(packages)
        return python

    def x86_python(self, model: str) -> Path:
        """Return this machine's Python on another model of x86-64 processor."""
        directory = self.path / f"x86-64-{model}"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        binary = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        write_python(directory, [self.qemu("x86_64"), "-cpu", model, "-0"], binary, version)
        return directory / "bin/python"

    def data(self) -> str:
        """Return `data` of a configuration: MNIST's training examples, and few examples to evaluate."""
        path = self.path / "mnist.npz"
        if not path.exists():
            splits = load_named("mnist", say=say).splits
            train, test = splits[SplitName.TRAIN], splits[SplitName.TEST]
            part = path.with_suffix(".part.npz")
            arrays = {"train_images": train.images, "train_labels": train.labels}
            arrays["test_images"], arrays["test_labels"] = test.images[:TEST_EXAMPLES], test.labels[:TEST_EXAMPLES]
            np.savez(part, **arrays)
            part.rename(path)
        counts = {"train_examples": 50_000, "validation_examples": VALIDATION_EXAMPLES}
        return json.dumps({"name": "arrays", "path": str(path), **counts})

    def _part(self, directory: Path) -> Path:
        """Return an empty directory that is to become another one."""
        part = directory.with_name(directory.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        return part

    def _unpack(self, archives: Path, target: Path) -> None:
        for archive in sorted(archives.glob("*.deb")):
            call(["dpkg", "-x", archive, target])
            archive.unlink()


def write_python(directory: Path, emulator: Sequence[str | Path], binary: Path, version: str) -> None:
    """Write an environment whose `bin/python` runs an emulated interpreter.

    Parameters
    ----------
    directory : the environment.
    emulator : a command that the interpreter's `argv[0]` and the interpreter follow. With the name of `bin/python` as
        `argv[0]`, it is `sys.executable`: the fork server, workers and helpers start through it.
    binary, version : the interpreter.
    """
    python = directory / "bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    words = shlex.join(map(str, emulator))
    python.write_text(f'#!/bin/sh\nexec {words} "$0" {shlex.quote(str(binary))} "$@"\n')
    python.chmod(0o755)
    (directory / "pyvenv.cfg").write_text(f"home = {binary.parent}\nversion = {version}\n")


def install_wheels(python: Path, version: str, requirements: Sequence[str], target: Path) -> None:
    """Install PyPI's wheels for an interpreter on arm64 into a directory."""
    libc = call([python, "-c", "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))"])
    say(f"installing wheels for arm64, Python {version} and {libc}")
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(17, int(libc.split(".")[1]) + 1)]
    platforms = [word for tag in ("manylinux2014_aarch64", *tags) for word in ("--platform", tag)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    wheels = ["--only-binary=:all:", "--python-version", version, *platforms]
    call([*pip, *wheels, "--target", target, *requirements])


class Comparison:
    """Compares processors, and counts the differences.

    Parameters
    ----------
    host : this machine.
    num_steps : the number of steps of each run.
    """

    def __init__(self, host: Processor, num_steps: int) -> None:
        self.host, self._num_steps = host, num_steps
        self.num_differences = 0
        self._runs: dict[tuple[str, int], Path] = {}

    def compare(self, other: Processor) -> None:
        """Compare all trainings on another processor, then resume and verify runs of each processor on the other."""
        say(f"golden digests on {other.name}; the kernels for another processor take minutes to compile")
        for line in other.train_golden():
            self.num_differences += "<-" in line
            say(f"  {line}")
        for configuration in CONFIGURATIONS:
            for num_workers in WORKERS:
                run = other.train(configuration, num_workers, self._num_steps, f"{num_workers}-workers")
                title = f"{configuration}, {self._num_steps} steps on {other.name}, {num_workers} workers"
                self._report(title, self._host_run(configuration, num_workers), run)
        for first, second in ((self.host, other), (other, self.host)):
            self._continue(CONFIGURATIONS[0], first, second)

    def _host_run(self, configuration: str, num_workers: int) -> Path:
        case = (configuration, num_workers)
        if case not in self._runs:
            self._runs[case] = self.host.train(configuration, num_workers, self._num_steps, f"{num_workers}-workers")
        return self._runs[case]

    def _report(self, title: str, expected: Path, run: Path) -> None:
        digest, other = digest_of(expected)[:12], digest_of(run)[:12]
        self.num_differences += digest != other
        say(f"{title}: {other}, " + ("same bits" if digest == other else f"NOT {digest} as on {self.host.name}"))

    def _continue(self, configuration: str, first: Processor, second: Processor) -> None:
        """Resume on one processor what another one has started, and verify it there."""
        num_workers, begun = max(WORKERS), self._num_steps // 2
        run = first.train(configuration, num_workers, begun, f"continued-on-{second.name}")
        second.resume(run, num_workers, self._num_steps)
        title = f"{configuration}, {begun} steps on {first.name}, {self._num_steps - begun} on {second.name}"
        self._report(title, self._host_run(configuration, num_workers), run)
        said = second.verify(run, num_workers)
        self.num_differences += not said.startswith("verified: ")
        say(f"  partrain verify on {second.name}: {said}")


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = user_cache_directory() / "other-processors"
    parser.add_argument(
        "processors", nargs="*", default=[ARM64], help="arm64, or qemu's models of x86-64, such as Nehalem or Haswell"
    )
    parser.add_argument("--cache", type=Path, default=default, help=f"what is kept between starts ({default})")
    parser.add_argument("--steps", type=int, default=6, help="the number of steps of each run (6)")
    return parser.parse_args()


def main() -> int:
    """Compare all processors that the command line names; return the exit code."""
    options = arguments()
    # `subprocess.run` then ends the program that runs.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if platform.machine() != "x86_64" or sys.platform != "linux":
        raise Failed("this program runs on Linux on x86-64")
    cache = Cache(options.cache.resolve())
    data, runs = cache.data(), cache.path / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir()
    found = {"PYTHONPATH": str(ROOT)}
    kept = found | {"XDG_CACHE_HOME": str(cache.path / "xdg")}
    host = Processor("x86-64", Path(sys.executable), found, data, runs)
    say(f"x86-64, this machine: {host.describe()}")
    comparison = Comparison(host, options.steps)
    for name in options.processors:
        if name == ARM64:
            python, environment = cache.arm64_python(), kept
        else:
            python = cache.x86_python(name)
            environment = kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()])}
        other = Processor(name, python, environment, data, runs)
        say(f"{name}, emulated: {other.describe()}")
        comparison.compare(other)
    differences = comparison.num_differences
    say(f"{differences} results differ" if differences else "one digest on every processor")
    return 1 if differences else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, PartrainError) as error:
        sys.exit(str(error))
