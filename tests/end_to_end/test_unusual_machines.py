"""File systems, limits and sandboxes that lack something: commands work, or say what is missing; nothing is left."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.program import Result
from tests.sample_runs import write_run

THEN_RUN = """
from partrain.__main__ import main
sys.exit(main())
"""
FAILING = """
import errno, fcntl, os, resource, sys
def failing(number):
    def fail(*args):
        raise OSError(number, os.strerror(number))
    return fail
"""
NO_LOCKS = FAILING + "fcntl.flock = failing(errno.ENOSYS)" + THEN_RUN
NO_MEMFD = FAILING + "os.memfd_create, os.posix_fallocate = failing(errno.ENOSYS), failing(errno.EOPNOTSUPP)" + THEN_RUN
NO_DIRECTORY_SYNC = (
    FAILING
    + """
fsync = os.fsync
def fsync_files(descriptor):
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        failing(errno.EINVAL)()
    fsync(descriptor)
os.fsync = fsync_files
"""
    + THEN_RUN
)
# Few descriptors, in a process that has some open already.
FEW_FILES = FAILING + "resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))" + THEN_RUN
# The fork server is a fork, too, in the tests; it is the process that is called "-c".
NO_FORK = (
    FAILING
    + """
fork = os.fork
def fork_no_worker():
    if sys.argv == ["-c"] and "partrain.parallel.workers.preload" in sys.modules:
        failing(errno.EAGAIN)()
    return fork()
os.fork = fork_no_worker
"""
    + THEN_RUN
)


def train(run_partrain: Callable[..., Result], config: Path, code: str, workers: int = 1) -> Result:
    return run_partrain("--config", config, "--runs-dir", "runs", "--workers", workers, code=code)


def test_runs_are_listed_and_compared_on_a_file_system_without_locks(
    run_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    write_run(tmp_path / "runs/a")
    (write_run(tmp_path / "runs/b", status="running") / "run.lock").touch()
    listed = run_partrain("list", "--json", code=NO_LOCKS)
    assert listed.exit_code == 0
    assert {row["name"]: row["status"] for row in json.loads(listed.stdout)} == {"a": "completed", "b": "running"}
    assert run_partrain("compare", "a", "b", code=NO_LOCKS).exit_code == 0


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (NO_LOCKS, "cannot be locked: Function not implemented. Use a directory on a file system that has locks"),
        (FAILING + "os.pwrite = failing(errno.ENOSPC)" + THEN_RUN, "No space left on device. Free disk space"),
        (FAILING + "os.write = failing(errno.EDQUOT)" + THEN_RUN, "Disk quota exceeded. Free disk space"),
    ],
    ids=["no locks", "the disk is full", "the quota is exhausted"],
)
def test_run_that_cannot_be_created_leaves_nothing(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path, code: str, problem: str
) -> None:
    refusal = train(run_partrain, small_config(), code, workers=0).refusal
    assert problem in refusal
    assert list((tmp_path / "runs").iterdir()) == []


def test_training_warns_once_where_directories_cannot_be_synced(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    result = train(run_partrain, small_config(), NO_DIRECTORY_SYNC)
    assert result.exit_code == 0
    assert result.stderr.count("cannot sync directories") == result.stderr.count("warning: ") == 1


def test_workers_share_memory_without_memfd_create(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    digests = []
    for code in (NO_MEMFD, ""):
        run = train(run_partrain, small_config(), code).run
        digests.append(json.loads((tmp_path / run / "summary.json").read_text())["parameters_sha256"])
    assert digests[0] == digests[1]


def test_soft_limit_on_open_files_does_not_stop_many_workers(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    code = FEW_FILES.format(soft=32, hard=200)
    assert train(run_partrain, small_config(), code, workers=7).exit_code == 0


def test_limit_on_open_files_is_a_message(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    refusal = train(run_partrain, small_config(), FEW_FILES.format(soft=32, hard=32), workers=7).refusal
    assert "7 workers need about" in refusal
    assert "may open only 32" in refusal


def test_limit_on_processes_is_a_message(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    refusal = train(run_partrain, small_config(), NO_FORK).refusal
    assert "(ulimit -u" in refusal
    assert list((tmp_path / "runs").iterdir()) == []


# The tests' program server has asked for this directory already.
OTHER_TEMPORARY = "import os, sys, tempfile; tempfile.tempdir = os.environ['TMPDIR']" + THEN_RUN


def test_long_path_of_temporary_files_is_no_problem(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    directory = tmp_path / ("very-long-directory-name-of-a-job-scheduler/" * 3)
    directory.mkdir(parents=True)
    options = {"env": {"TMPDIR": str(directory)}, "code": OTHER_TEMPORARY}
    assert run_partrain("--config", small_config(), "--workers", 1, **options).exit_code == 0
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("point", ["coordinator: before the run is made", "coordinator: before a step"])
def test_killed_program_leaves_no_temporary_files_to_the_next_one(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], point: str
) -> None:
    with tempfile.TemporaryDirectory() as name:  # its path is short, unlike `tmp_path`
        temporary, env = Path(name), {"TMPDIR": name}
        options = {"env": env | {"PARTRAIN_KILL_AT": f"{point}|1"}, "code": OTHER_TEMPORARY}
        config = small_config()
        assert run_partrain("--config", config, "--workers", 1, **options).exit_code == -signal.SIGKILL
        assert list(temporary.iterdir())
        assert run_partrain("--config", config, "--workers", 1, env=env, code=OTHER_TEMPORARY).exit_code == 0
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("kernels", "workers"), [("fast", 0), ("loops", 1)])
def test_disabled_compiler_is_a_message(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], kernels: str, workers: int
) -> None:
    code = "import sys, numba; numba.config.DISABLE_JIT = 1" + THEN_RUN
    refusal = train(run_partrain, small_config({"training.kernels": kernels}), code, workers).refusal
    assert "NUMBA_DISABLE_JIT is set" in refusal


@pytest.mark.slow
def test_unknown_user_without_a_home_trains_with_a_warning(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    code = "import os, sys; os.path.expanduser = lambda path: path" + THEN_RUN
    env = dict.fromkeys(("HOME", "XDG_CACHE_HOME"))
    result = run_partrain(
        "--config", small_config({"training.kernels": "loops"}), "--workers", 1, env=env, code=code, fresh=True
    )
    assert result.exit_code == 0
    assert result.stderr.count("set HOME or XDG_CACHE_HOME") == result.stderr.count("warning: ") == 1


@pytest.mark.slow
def test_kernels_are_compiled_for_the_processor_that_the_user_names(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    env = {"NUMBA_CPU_NAME": "generic", "XDG_CACHE_HOME": str(tmp_path)}
    run = run_partrain("--config", small_config({"training.kernels": "loops"}), "--workers", 1, env=env, fresh=True).run
    target = json.loads((tmp_path / run / "run.json").read_text())["processor"]["numba_target"]
    assert target == {"NUMBA_CPU_NAME": "generic"}
