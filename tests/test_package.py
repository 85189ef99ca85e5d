"""What the package says of itself."""

from __future__ import annotations

import tomllib
from pathlib import Path

from partrain.config import example_files
from tests.program import ROOT


def test_licence_is_an_spdx_expression_and_no_classifier() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    assert project["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert not [classifier for classifier in project["classifiers"] if classifier.startswith("License")]


def test_wheel_has_the_example_configurations_where_the_program_looks_for_them() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "configs" in wheel["only-include"]
    module = Path(example_files.__file__).relative_to(ROOT)
    assert wheel["sources"] == {"configs": str(module.with_name("examples"))}
