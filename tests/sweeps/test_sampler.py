from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.errors import ResourceError
from partrain.store.sweep_directory import Axis
from partrain.sweeps.sampler import SettingsSampler
from tests.program import Result

AXES = [
    Axis(key="lr", low=1e-4, high=1e-1, scale="log"),
    Axis(key="units", low=8, high=64),
    Axis(key="kernel", values=[[3, 3], 5, None]),
]


def sampler(path: Path, name: str = "random", seed: int = 0) -> SettingsSampler:
    return SettingsSampler(path / "study.sqlite3", AXES, name, seed, maximize=True)


def test_settings_are_in_their_ranges_and_lists_are_values(tmp_path: Path) -> None:
    drawn = [sampler(tmp_path).draw() for _ in range(8)]
    assert [number for number, _ in drawn] == list(range(1, 9))
    assert all(1e-4 <= settings["lr"] <= 1e-1 and settings["kernel"] in AXES[2].values for _, settings in drawn)
    assert all(isinstance(settings["units"], int) and 8 <= settings["units"] <= 64 for _, settings in drawn)
    assert len({settings["lr"] for _, settings in drawn}) == 8


def test_random_settings_do_not_depend_on_when_a_sweep_was_interrupted(tmp_path: Path) -> None:
    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
    one = sampler(tmp_path / "whole")
    whole = [one.draw() for _ in range(4)]
    again = [sampler(tmp_path / "again").draw() for _ in range(4)]
    assert again == whole
    assert sampler(tmp_path / "again").drawn() == dict(whole)


def test_a_curve_below_the_median_is_worse(tmp_path: Path) -> None:
    study = sampler(tmp_path, "tpe")
    for value in (0.5, 0.6, 0.7, 0.8, 0.9):
        number, _ = study.draw()
        assert not study.is_worse(number, [value, value])
        study.tell(number, value)
        study.tell(number, 0.0)  # only the first has an effect
    number, _ = study.draw()
    assert not study.is_worse(number, [0.95])
    number, _ = study.draw()
    assert study.is_worse(number, [0.1])
    study.tell_pruned(number)
    assert len(sampler(tmp_path).drawn()) == 7


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite3").write_text("this is no database, but a text that is long enough to be one" * 20)
    with pytest.raises(ResourceError, match=r"study.sqlite3: cannot be used: .*not a database"):
        sampler(tmp_path)


def test_the_sampler_draws_the_settings_of_a_sweep(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    words = ["--sampler", "tpe", "--trials", 4, "--set", "training.optimizer.lr=1e-3..1e-1", "--sweep-dir", "s"]
    result = run_partrain("sweep", "--config", small_config(), *words, "--prune")
    assert result.exit_code == 0, result.stderr
    assert "0.001 to 0.1, log" in result.stderr
    again = run_partrain("sweep", "--config", small_config(), *words, "--prune")
    assert "4 trainings" in again.stderr
    assert "4 done already" in again.stderr
    assert again.stdout == result.stdout


def test_without_optuna_the_message_says_what_to_install(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["--sampler", "random", "--trials", 3, "--set", "training.optimizer.lr=1e-3..1e-1"]
    refusal = call_partrain("sweep", "--config", small_config(), *words).refusal
    assert "--sampler needs the package optuna: pip install 'partrain[sweep]'" in refusal
