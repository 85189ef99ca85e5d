from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.config.example_files import example_configs, find_config
from tests.program import ROOT, Result


def test_examples_are_those_of_the_checkout() -> None:
    assert example_configs() == {path.name: path for path in (ROOT / "configs").glob("*.yaml")}
    assert "mnist.yaml" in example_configs()


@pytest.mark.parametrize("name", ["mnist.yaml", "configs/mnist.yaml"])
def test_example_is_found_by_its_name_where_no_such_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert find_config(name, said.append) == str(ROOT / "configs/mnist.yaml")
    assert f"{name}: there is no such file; the example configuration" in said[0]


@pytest.mark.parametrize("name", ["other/mnist.yaml", "/configs/mnist.yaml", "mnist", "", "../configs/mnist.yaml"])
def test_other_paths_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name, pytest.fail) == name


def test_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist.yaml").symlink_to("nowhere")
    assert find_config("mnist.yaml", pytest.fail) == "mnist.yaml"


def test_command_says_that_it_uses_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_partrain: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call_partrain("--config", "synthetic-digits.yaml", "--dry-run", "--workers", 0)
    assert result.exit_code == 0
    assert "the example configuration" in result.stderr
    assert "synthetic-digits.yaml is used" in result.stderr
    for name, hint in (("my.yaml", ""), ("configs/mnits.yaml", "; did you mean mnist.yaml?"), ("x/mnits.yaml", "")):
        missing = call_partrain("--config", name, "--dry-run")
        assert (missing.exit_code, missing.stdout) == (2, "")
        said = f"error: cannot read the configuration {name}: No such file or directory{hint}\n"
        assert missing.stderr == said


def test_commands_that_describe_data_use_the_examples_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_partrain: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("show", "configs/synthetic-digits.yaml", "--json"), ("pack", "synthetic-digits.yaml", "--to", "d")):
        result = call_partrain("data", *words)
        assert result.exit_code == 0
        assert "synthetic-digits.yaml is used\n" in result.stderr
    missing = call_partrain("data", "show", "my.yaml")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "cannot read the configuration my.yaml" in missing.stderr
