"""Contract C4: what the user got wrong is told in one message; nothing starts, and nothing is left in runs/."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from partrain.data import catalog, loading
from partrain.parallel import memory_plan
from partrain.parallel.workers import pool
from partrain.training import resources
from tests.noise_data import noise_examples, write_idx, write_idx_folder
from tests.program import Result

Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*args: object, **options: object) -> None:
        pytest.fail("workers were started")

    monkeypatch.setattr(pool, "WorkerPool", started)


@pytest.fixture
def refuse(call_partrain: Callable[..., Result], tmp_path: Path) -> Refuse:
    """Call the program and return its one message, after checking that it left nothing."""

    def call(*arguments: object, where: tuple[object, ...] | None = None) -> str:
        runs = tmp_path / "runs"
        result = call_partrain(*arguments, *(("--runs-dir", runs) if where is None else where))
        assert result.exit_code == 2, result
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        errors = [line for line in result.stderr.splitlines() if "error: " in line]
        assert len(errors) == 1, result.stderr
        assert not runs.exists() or list(runs.iterdir()) == []
        return result.stderr[result.stderr.index("error: ") :]

    return call


# ---- the configuration file


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["No such file"]),
        (b"", ["empty", "data", "network"]),
        (b"# nothing\n", ["empty"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        (b"data: [1, 2\n", ["not valid YAML", "line"]),
        (b"data: {name: mnist}\ndata: {name: idx}\n", ["not valid YAML", "the key 'data' appears twice"]),
        (b"just words\n", ["a text", "mapping"]),
        (b"- 1\n- 2\n", ["a list", "mapping"]),
        (b"data: !!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
        (b"{" * 20_000, ["not valid YAML"]),
    ],
    ids=["missing", "empty", "comments", "binary", "broken", "twice", "text", "list", "python", "deep"],
)
def test_file_that_is_no_configuration(
    refuse: Refuse, tmp_path: Path, content: bytes | None, fragments: list[str]
) -> None:
    path = tmp_path / "given.yaml"
    if content is not None:
        path.write_bytes(content)
    message = refuse("--config", path)
    assert all(fragment in message for fragment in [str(path), *fragments]), message


def test_folder_in_place_of_a_configuration(refuse: Refuse, tmp_path: Path) -> None:
    assert "directory" in refuse("--config", tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "fragments"),
    [
        ("trainning", {}, ["trainning: unknown key", "did you mean training?"]),
        ("training.batchsize", 3, ["training.batchsize: unknown key", "did you mean batch_size?"]),
        ("training.lr", 0.1, ["training.lr: unknown key", "training.optimizer.lr"]),
        ("training.batch_size", "many", ["training.batch_size: must be", "'many'"]),
        ("training.batch_size", 1.5, ["training.batch_size", "1.5"]),
        ("training.batch_size", True, ["training.batch_size"]),
        ("training.batch_size", 0, ["training.batch_size: must be greater than 0"]),
        ("training.batch_size", -4, ["training.batch_size: must be greater than 0"]),
        ("training.batch_size", 10**12, ["training.batch_size"]),
        ("training.tile", 0, ["training.tile"]),
        ("training.epochs", 0, ["training.epochs"]),
        ("training.epochs", -1, ["training.epochs"]),
        ("training.max_steps", 0, ["training.max_steps"]),
        ("training.optimizer.lr", 0, ["training.optimizer.lr"]),
        ("training.optimizer.lr", float("nan"), ["training.optimizer.lr"]),
        ("training.optimizer.lr", float("inf"), ["training.optimizer.lr"]),
        ("training.optimizer.lr", 1e38, ["training.optimizer.lr"]),
        ("training.optimizer.eps", 1e-300, ["training.optimizer.eps"]),
        ("training.optimizer.beta1", 1, ["training.optimizer.beta1"]),
        ("training.dtype", "float64", ["training", "kernels: loops"]),
        ("training.kernels", "quick", ["training.kernels", "fast"]),
        ("seed", -1, ["seed"]),
        ("format", 2, ["format"]),
        ("logging.every_steps", 0, ["logging.every_steps"]),
        ("checkpoints.keep_last", 0, ["checkpoints.keep_last"]),
        ("workers.max_restarts", -1, ["workers.max_restarts"]),
        ("data.name", "minst", ["data.name", "mnist"]),
        ("data.train_examples", 0, ["data.train_examples"]),
        ("data.validation_examples", -1, ["data.validation_examples"]),
        ("network", [], ["network"]),
        ("network", [{"conv": {"filters": 0, "kernel": 3}}], ["network.0", "filters"]),
        ("network", [{"conv": {"filters": 1, "kernel": 0}}], ["network.0", "kernel"]),
        ("network", [{"conv": {"filters": 1, "kernel": 3, "stride": 0}}], ["network.0", "stride"]),
        ("network", [{"conv": {"filters": 1, "kernel": 3, "padding": -1}}], ["network.0", "padding"]),
        ("network", [{"max_pool": {"window": 0}}], ["network.0", "window"]),
        ("network", [{"dense": {"units": -1}}], ["network.0", "units"]),
        ("network", [{"convolution": {}}], ["network.0", "unknown layer 'convolution'"]),
        ("network", ["flatten", {"dense": {"units": 10, "bias": True}}], ["network.1", "bias", "unknown key"]),
        ("network", [{"conv": {"filters": 1, "kernel": 29}}], ["network.0 (conv1)", "29 x 29", "28 x 28"]),
        ("network", [{"dense": {"units": 10}}], ["network.0 (dense1)", "flatten"]),
        ("network", ["flatten", {"dense": {"units": 9}}], ["network.1 (dense1)", "9 outputs", "10 classes"]),
        ("network", ["flatten"], ["network", "nothing to train"]),
        ("name", "../../x", ["name: '../../x'"]),
        ("name", "/tmp/x", ["name: "]),
        ("name", "..", ["name: "]),
        ("name", "a\0b", ["name: "]),
        ("name", "x" * 300, ["name: ", "300 characters"]),
        ("name", "", ["name: is empty"]),
        ("name", 5, ["name"]),
    ],
)
def test_value_that_cannot_be_used(
    refuse: Refuse,
    small_config: Callable[..., Path],
    noise_folder: Path,
    key: str,
    value: Any,
    fragments: list[str],
) -> None:
    changes = {"data": {"name": "idx", "path": str(noise_folder)}, key: value}
    message = refuse("--config", small_config(changes))
    assert all(fragment in message for fragment in fragments), message


def test_all_errors_of_a_configuration_are_told_at_once(refuse: Refuse, small_config: Callable[..., Path]) -> None:
    message = refuse("--config", small_config({"training.epochs": 0, "sed": 1, "data.nme": "x"}))
    assert "3 errors" in message
    for key in ("training.epochs: ", "sed: unknown key; did you mean seed?", "data.nme: unknown key"):
        assert key in message


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("training.epochs", ["KEY=VALUE"]),
        ("=3", ["KEY=VALUE"]),
        ("", ["KEY=VALUE"]),
        ("training.epochs=[1", ["not valid YAML"]),
        ("training.epochs=two", ["training.epochs", "'two'"]),
        ("training.epoch=2", ["training.epoch: unknown key", "epochs"]),
        ("training.epochs.more=2", ["training.epochs.more"]),
        ("network.99.dense.units=2", ["'99' is no entry of the list, which has 5"]),
        ("network.first=relu", ["'first' is no entry of the list"]),
        ("network.1.dense=2", ["network.1.dense"]),
        ("name=../../x", ["name: '../../x'"]),
        ("training=", ["training"]),
    ],
)
def test_override_that_cannot_be_used(
    refuse: Refuse, small_config: Callable[..., Path], override: str, fragments: list[str]
) -> None:
    message = refuse("--config", small_config(), "--set", override)
    assert all(fragment in message for fragment in fragments), message


# ---- the command line


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "99999", "", " 2", "²", "9" * 5000])
def test_number_of_workers_that_is_none(refuse: Refuse, small_config: Callable[..., Path], number: str) -> None:
    assert "--workers" in refuse("--config", small_config(), "--workers", number)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("train",),
        ("trane", "--config", "x"),
        ("--config",),
        ("--config", "x", "--nonsense"),
        ("--workers", "2"),
    ],
    ids=["nothing", "no config", "unknown command", "no value", "unknown option", "workers alone"],
)
def test_command_line_that_is_none(refuse: Refuse, arguments: tuple[str, ...]) -> None:
    refuse(*arguments, where=())


def test_run_goes_to_one_place(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    where = ("--runs-dir", tmp_path / "runs", "--run-dir", tmp_path / "run")
    assert "not allowed with" in refuse("--config", small_config(), where=where)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_run_directory_that_exists_stays_as_it_is(
    refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    run = tmp_path / "taken"
    if kind == "folder":
        run.mkdir()
    elif kind == "file":
        run.write_text("mine")
    else:
        run.symlink_to(tmp_path / "nowhere")
    message = refuse("--config", small_config(), where=("--run-dir", run))
    assert f"{run}: exists already" in message
    assert not run.is_dir() or list(run.iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("option", ["--runs-dir", "--run-dir"])
@pytest.mark.parametrize("folder", ["a file", "/proc/nowhere"])
def test_folder_that_cannot_be_written_is_found_before_anything_starts(
    refuse: Refuse,
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    folder: str,
) -> None:
    def prepared(*args: object, **options: object) -> None:
        pytest.fail("the data was read before the folder was looked at")

    monkeypatch.setattr(resources, "plan_training", prepared)
    if folder == "a file":
        folder = str(tmp_path / "file")
        Path(folder).write_text("mine")
    place = f"{folder}/run" if option == "--run-dir" else folder
    message = refuse("--config", small_config(), where=(option, place))
    assert folder in message
    assert "cannot create a run directory" in message


# ---- the data


def in_place_of(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def break_truncated_gzip(folder: Path) -> str:
    content = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(content[: len(content) // 2])
    return "cut off"


def break_gzip(folder: Path) -> str:
    content = bytearray(gzip.compress((folder / IMAGES).read_bytes()))
    content[len(content) // 2] ^= 255
    in_place_of(folder, IMAGES, bytes(content))
    return IMAGES


def break_magic(folder: Path) -> str:
    content = (folder / IMAGES).read_bytes()
    in_place_of(folder, IMAGES, b"\x01\x02\x03\x04" + content[4:])
    return "begins with 0x01020304"


def break_length(folder: Path) -> str:
    in_place_of(folder, IMAGES, (folder / IMAGES).read_bytes()[:-1])
    return "header announces"


def break_end(folder: Path) -> str:
    in_place_of(folder, IMAGES, (folder / IMAGES).read_bytes() + b"x")
    return "goes on after"


def break_size(folder: Path) -> str:
    in_place_of(folder, IMAGES, bytes((0, 0, 8, 3)) + b"\xff" * 12)
    return "limit"


def break_counts(folder: Path) -> str:
    write_idx(folder / LABELS, noise_examples(59)[1])
    return "60 images"


def break_by_emptying(folder: Path) -> str:
    in_place_of(folder, IMAGES, b"")
    return "is empty"


def break_by_removing(folder: Path) -> str:
    (folder / IMAGES).unlink()
    return f"holds no {IMAGES}"


def break_by_swapping(folder: Path) -> str:
    in_place_of(folder, IMAGES, (folder / LABELS).read_bytes())
    return "swapped"


def break_test_size(folder: Path) -> str:
    write_idx(folder / "t10k-images-idx3-ubyte", noise_examples(20, size=14)[0])
    return "Give both the same"


@pytest.mark.parametrize(
    "damage",
    [
        break_truncated_gzip,
        break_gzip,
        break_magic,
        break_length,
        break_end,
        break_size,
        break_counts,
        break_by_emptying,
        break_by_removing,
        break_by_swapping,
        break_test_size,
    ],
)
def test_files_that_are_damaged(
    refuse: Refuse, small_config: Callable[..., Path], noise_folder: Path, damage: Callable[[Path], str]
) -> None:
    expected = damage(noise_folder)
    message = refuse("--config", small_config({"data": {"name": "idx", "path": str(noise_folder)}}))
    assert expected in message
    assert str(noise_folder) in message


def test_folder_of_files_that_is_missing(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert missing in refuse("--config", small_config({"data": {"name": "idx", "path": missing}}))
    assert missing in refuse("--config", small_config({"data": {"name": "arrays", "path": missing}}))
    assert "data.path" in refuse("--config", small_config({"data": {"name": "idx"}}))


def test_label_that_no_output_is_for(refuse: Refuse, small_config: Callable[..., Path], noise_folder: Path) -> None:
    write_idx(noise_folder / LABELS, np.full(60, 10, np.uint8))
    message = refuse("--config", small_config({"data": {"name": "idx", "path": str(noise_folder)}}))
    assert "(dense1)" in message
    assert "11 classes" in message


def test_more_examples_than_there_are(refuse: Refuse, small_config: Callable[..., Path], noise_folder: Path) -> None:
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 11}
    message = refuse("--config", small_config({"data": data}))
    assert "data.train_examples" in message
    assert "60" in message


@pytest.fixture
def _no_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = dataclasses.replace(catalog.CATALOG["mnist"], mirrors=(), system_folders=())
    monkeypatch.setitem(catalog.CATALOG, "mnist", entry)
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.usefixtures("_no_mirror")
@pytest.mark.parametrize("when_unavailable", ["error", "synthetic-digits"])
def test_digest_that_does_not_match_is_never_passed_over(
    refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path, when_unavailable: str
) -> None:
    folder = write_idx_folder(tmp_path / "data/mnist", noise_examples(60), noise_examples(20))
    data = {"name": "mnist", "when_unavailable": when_unavailable}
    message = refuse("--config", small_config({"data": data}))
    assert str(folder / IMAGES) in message
    assert "SHA-256" in message


@pytest.mark.usefixtures("_no_mirror")
def test_data_set_that_cannot_be_had(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    message = refuse("--config", small_config({"data": {"name": "mnist", "when_unavailable": "error"}}))
    assert "could not be had" in message
    assert str(tmp_path / "data/mnist") in message


def archive(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = noise_examples(n)
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"train_images": np.array([{}] * 60)}, ["train_images", "Python objects"]),
        ({"train_labels": None}, ["train_labels"]),
        ({"train_labels": np.zeros(59, int)}, ["60 images", "59 labels"]),
        ({"train_labels": np.full(60, -1)}, ["train_labels", "-1"]),
        ({"train_labels": np.zeros(60)}, ["train_labels", "float64"]),
        ({"train_images": np.zeros((60, 28, 28))}, ["train_images", "float64"]),
        ({"train_images": np.full((60, 28, 28), np.nan, np.float32)}, ["train_images", "nan"]),
        ({"train_images": np.zeros((60, 784), np.uint8)}, ["train_images", "(60, 784)"]),
    ],
)
def test_arrays_that_cannot_be_used(
    refuse: Refuse,
    small_config: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    fragments: list[str],
) -> None:
    path = archive(tmp_path / "data.npz", **changes)
    message = refuse("--config", small_config({"data": {"name": "arrays", "path": str(path)}}))
    assert all(fragment in message for fragment in [str(path), *fragments]), message


def test_archive_that_is_truncated(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    path = archive(tmp_path / "data.npz")
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in refuse("--config", small_config({"data": {"name": "arrays", "path": str(path)}}))


# ---- the machine


def test_too_little_memory(refuse: Refuse, small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 2**20)
    message = refuse("--config", small_config(), "--workers", 2)
    assert "needs about" in message
    assert "1 MiB are available" in message


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot allocate ahead")
def test_too_little_shared_memory(
    refuse: Refuse, small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert "MiB of shared memory are needed" in refuse("--config", small_config(), "--workers", 2)


def test_memory_that_runs_out_on_the_way_is_a_message(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(loading, "divide", allocate)
    result = call_partrain("--config", small_config(), "--workers", 0)
    assert result.exit_code == 1
    assert "error: there is not enough memory for this process" in result.stderr


def test_too_little_disk(
    refuse: Refuse, small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    message = refuse("--config", small_config(), "--workers", 2)
    assert f"{tmp_path / 'runs'}: the run needs about" in message
    assert "are free" in message


# ---- as a user sees it


@pytest.mark.parametrize("mistake", ["configuration", "workers", "name", "data", "folder"])
def test_user_sees_one_message_and_no_traceback(
    run_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    noise_folder: Path,
    tmp_path: Path,
    mistake: str,
) -> None:
    in_place_of(noise_folder, IMAGES, b"")
    arguments: dict[str, tuple[object, ...]] = {
        "configuration": ("--config", "missing.yaml"),
        "workers": ("--config", small_config(), "--workers", "-1"),
        "name": ("--config", small_config(), "--set", "name=../../x"),
        "data": ("--config", small_config(), "--set", f"data={{name: idx, path: {noise_folder}}}"),
        "folder": ("--config", small_config(), "--runs-dir", noise_folder / LABELS),
    }
    result = run_partrain(*arguments[mistake], fresh=mistake == "configuration")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []
