"""What the package says of itself."""

from __future__ import annotations

import tomllib

from tests.program import ROOT


def test_licence_is_an_spdx_expression_and_no_classifier() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    assert project["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert not [classifier for classifier in project["classifiers"] if classifier.startswith("License")]
