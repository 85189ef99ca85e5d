from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parallel.workers.pools import Pools


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()
