"""A browser that the tests of a module share: it takes seconds to start."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import ProcessEntry, descendants_of, read_process, wait_for_the_end_of

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The process ids of the drivers: Playwright's child process, which starts the browser.
_drivers: set[int] = set()


@contextlib.contextmanager
def running_browser() -> Iterator[Any]:
    """Start a browser with a new profile; at the end, check that none of its processes is left."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]' to run this")
    before = {entry.pid for entry in descendants_of(os.getpid())}
    with sync_api.sync_playwright() as playwright:
        drivers = {entry.pid for entry in descendants_of(os.getpid())} - before
        _drivers.update(drivers)
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        try:
            yield browser
        finally:
            entries = browser_processes()
            browser.close()
    _drivers.difference_update(drivers)
    wait_for_the_end_of(lambda: [entry for entry in entries if read_process(entry.pid)], "processes of the browser")


def browser_processes() -> list[ProcessEntry]:
    """Return the processes of the running browser; pages start and end some of them."""
    found = [entry for pid in _drivers for entry in (read_process(pid), *descendants_of(pid))]
    return [entry for entry in found if entry is not None]
