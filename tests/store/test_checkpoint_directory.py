from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors

from partrain.store.checkpoint import load
from partrain.store.checkpoint_directory import CheckpointDirectory
from tests.store.file_faults import fault_at_call, kill_this_process, recorded_calls
from tests.store.sample_checkpoints import assert_same, make_checkpoint, replace_old_by_new


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointDirectory:
    return CheckpointDirectory(tmp_path)


def remaining_steps(checkpoints: CheckpointDirectory) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in checkpoints.files()]


def test_a_saved_checkpoint_is_a_safetensors_file_named_by_its_step(checkpoints: CheckpointDirectory) -> None:
    path = checkpoints.save(make_checkpoint(3126))
    assert path == checkpoints.path / "step-00003126.safetensors" == checkpoints.path_of(3126)
    with safetensors.safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["partrain"])["step"] == 3126
    assert_same(load(path), make_checkpoint(3126))


def test_the_newest_good_checkpoint_is_found_with_a_warning_for_each_damaged_one(
    checkpoints: CheckpointDirectory,
) -> None:
    for step in (5, 90, 100_000_000, 200_000_000):
        checkpoints.save(make_checkpoint(step))
    truncated, altered = checkpoints.path_of(200_000_000), checkpoints.path_of(100_000_000)
    os.truncate(truncated, 100)
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    (checkpoints.path / ".step-99999999.safetensors.1.tmp").write_bytes(b"half")
    checkpoints.path_of(91).mkdir()
    warnings: list[str] = []
    found = checkpoints.newest_good(warnings.append)
    assert found is not None
    assert_same(found[0], make_checkpoint(90))
    assert found[1] == checkpoints.path_of(90)
    assert [str(truncated) in warnings[0], str(altered) in warnings[1], len(warnings)] == [True, True, 2]


def test_an_unreadable_file_is_skipped_with_a_warning(
    checkpoints: CheckpointDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(make_checkpoint(1))
    bad = checkpoints.save(make_checkpoint(2))
    read_bytes = Path.read_bytes

    def failing_disk(path: Path) -> bytes:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing_disk)
    warnings: list[str] = []
    found = checkpoints.newest_good(warnings.append)
    assert found is not None
    assert found[0].step == 1
    assert warnings == [f"{bad}: cannot be read: Input/output error. It is skipped."]


def test_a_reader_finds_the_newer_file_if_training_deletes_the_one_it_is_about_to_read(
    checkpoints: CheckpointDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = checkpoints.save(make_checkpoint(1))
    read_bytes = Path.read_bytes

    def overtaken(path: Path) -> bytes:
        if path == old:
            replace_old_by_new(checkpoints.path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", overtaken)
    found = checkpoints.newest_good(pytest.fail)
    assert found is not None
    assert found[0].step == 2


def test_without_good_checkpoints_none_is_found(checkpoints: CheckpointDirectory) -> None:
    assert checkpoints.newest_good(pytest.fail) is None
    assert CheckpointDirectory(checkpoints.path / "missing").newest_good(pytest.fail) is None
    checkpoints.path_of(1).write_bytes(b"")
    warnings: list[str] = []
    assert checkpoints.newest_good(warnings.append) is None
    assert len(warnings) == 1


def test_the_newest_shapes_are_those_of_the_highest_step(checkpoints: CheckpointDirectory) -> None:
    assert checkpoints.newest_shapes() is None
    checkpoints.path_of(1).write_bytes(b"damaged")
    checkpoints.save(make_checkpoint(2))
    shapes = checkpoints.newest_shapes()
    assert shapes == {name: tensor.shape for name, tensor in make_checkpoint(2).tensors.items()}


@pytest.mark.parametrize(
    ("keep_last", "best_step", "remaining"),
    [(1, None, [40]), (2, None, [30, 40]), (2, 10, [10, 30, 40]), (1, 40, [40]), (9, 20, [10, 20, 30, 40])],
)
def test_prune_keeps_the_last_and_the_best(
    checkpoints: CheckpointDirectory, keep_last: int, best_step: int | None, remaining: list[int]
) -> None:
    for step in (10, 20, 30, 40):
        checkpoints.save(make_checkpoint(step))
    checkpoints.prune(newest_step=40, keep_last=keep_last, best_step=best_step)
    assert remaining_steps(checkpoints) == remaining


def test_a_damaged_file_of_a_later_step_does_not_displace_a_good_one(checkpoints: CheckpointDirectory) -> None:
    checkpoints.save(make_checkpoint(10))
    checkpoints.path_of(40).write_bytes(b"damaged, so the run was resumed from step 10")
    checkpoints.save(make_checkpoint(20))
    checkpoints.prune(newest_step=20, keep_last=1, best_step=None)
    assert remaining_steps(checkpoints) == [20]


def test_prune_refuses_to_keep_nothing(checkpoints: CheckpointDirectory) -> None:
    checkpoints.save(make_checkpoint(1))
    with pytest.raises(ValueError, match="keep_last"):
        checkpoints.prune(newest_step=1, keep_last=0, best_step=None)


def test_prune_leaves_other_files_and_removes_leftovers_of_killed_processes(checkpoints: CheckpointDirectory) -> None:
    for step in (1, 2):
        checkpoints.save(make_checkpoint(step))
    (checkpoints.path / "notes.txt").write_text("mine")
    (checkpoints.path / f".step-00000003.safetensors.{os.getpid()}.tmp").write_bytes(b"half")
    checkpoints.prune(newest_step=2, keep_last=1, best_step=None)
    assert sorted(os.listdir(checkpoints.path)) == ["notes.txt", "step-00000002.safetensors"]


def test_an_old_file_is_deleted_only_after_the_new_one_is_durable(checkpoints: CheckpointDirectory) -> None:
    checkpoints.save(make_checkpoint(1))
    with recorded_calls() as calls:
        replace_old_by_new(checkpoints.path)
    expected = ["open", "write", "fsync", "close", "replace", "open", "fsync", "close", "unlink"]
    assert calls.names == expected


def assert_old_or_new_loads(checkpoints: CheckpointDirectory) -> None:
    found = checkpoints.newest_good(pytest.fail)
    assert found is not None
    assert_same(found[0], make_checkpoint(found[0].step))
    assert found[0].step in (1, 2)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_call_of_a_save_leaves_old_or_new_and_no_temporary(
    checkpoints: CheckpointDirectory, number: int
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for call in range(1, 10):
        for path in checkpoints.path.iterdir():
            path.unlink()
        checkpoints.save(make_checkpoint(1))
        with fault_at_call(call, fail), pytest.raises(OSError, match=os.strerror(number)):
            replace_old_by_new(checkpoints.path)
        assert_old_or_new_loads(checkpoints)
        assert checkpoints.path_of(1).exists(), "the old file goes last"
        assert all(name.startswith("step-") for name in os.listdir(checkpoints.path))
    with fault_at_call(10, fail):
        replace_old_by_new(checkpoints.path)


def exit_code_in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; return its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_at_any_call_of_a_save_leaves_old_or_new(tmp_path: Path) -> None:
    def save_with_fault() -> None:
        with fault_at_call(call, kill_this_process):
            replace_old_by_new(checkpoints.path)

    for call in range(1, 100):
        checkpoints = CheckpointDirectory(tmp_path / str(call))
        checkpoints.path.mkdir()
        checkpoints.save(make_checkpoint(1))
        code = exit_code_in_child(save_with_fault)
        assert_old_or_new_loads(checkpoints)
        leftovers = [name for name in os.listdir(checkpoints.path) if name.endswith(".tmp")]
        assert len(leftovers) == (1 if 2 <= call <= 5 else 0)
        replace_old_by_new(checkpoints.path)
        assert os.listdir(checkpoints.path) == ["step-00000002.safetensors"]
        if code == 0:
            break
    assert call == 10, "one call per step of the save, and one more in which it succeeds"
