from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.mirror_server import Mirror
from tests.data.small_mnist import CONTENTS, offer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in which the small "mnist" is searched; it does not exist."""
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    offer(monkeypatch, CONTENTS)
    return tmp_path / "data" / "mnist"


@pytest.fixture
def mirror(home: Path) -> Iterator[Mirror]:
    with Mirror() as server:
        server.daemon_threads = False  # so that closing waits for the answers' threads
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.end.set()
        server.shutdown()
        thread.join()
