"""The bits of small trainings: those of the file, on this processor and as on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from partrain.kernels.bits_version import BITS_VERSION
from tests.golden.digests import WHAT_TO_DO, read, train
from tests.golden.trainings import TRAININGS
from tests.program import ROOT


def test_file_has_the_digests_of_all_trainings_for_the_current_version() -> None:
    version, digests = read()
    assert version == BITS_VERSION, "python -m tests.golden --write"
    assert list(digests) == list(TRAININGS)


def test_readme_says_what_each_version_means() -> None:
    _, _, table = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n| version of the bits |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [str(n + 1) for n in range(BITS_VERSION)]


@pytest.mark.parametrize("name", TRAININGS)
def test_training_has_the_golden_digests(name: str, tmp_path: Path) -> None:
    assert train(TRAININGS[name], tmp_path / "run") == read()[1].get(name), WHAT_TO_DO
