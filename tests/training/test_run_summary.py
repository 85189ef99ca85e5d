from __future__ import annotations

from typing import Any

import pytest

from partrain.training.run_summary import describe_processes


@pytest.mark.parametrize(
    ("num_workers", "of_ranks", "words"),
    [
        (0, None, "this process"),
        (1, None, "1 worker"),
        (8, None, "8 workers"),
        (2, [2], "1 rank with 2 workers"),
        (1, [1, 1], "2 ranks with 1 worker each"),
        (0, [0, 0, 0], "3 ranks without workers"),
        (8, [8, 8, 4], "3 ranks with 8, 8 and 4 workers"),
        (1, [1, 0], "2 ranks with 1 and 0 workers"),
    ],
)
def test_start_line_names_the_processes_that_compute(num_workers: int, of_ranks: list[int] | None, words: str) -> None:
    ranks: list[dict[str, Any]] | None = None
    if of_ranks is not None:
        ranks = [{"host": f"host-{rank}", "workers": number} for rank, number in enumerate(of_ranks)]
    assert describe_processes(num_workers, ranks) == words
