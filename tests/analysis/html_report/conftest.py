from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.html_report.sample_page import write_sample_page


@pytest.fixture(scope="session")
def written_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs."""
    return write_sample_page(tmp_path_factory.mktemp("page"))
