from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["idx", "arrays"])
def test_your_own_files_need_a_path(refusal, name):
    assert "data.path" in refusal(f"data: {{name: {name}}}\nnetwork: [flatten]")


def test_a_named_data_set_takes_no_path(refusal):
    assert "data.path" in refusal("data: {name: mnist, path: x}\nnetwork: [flatten]")
