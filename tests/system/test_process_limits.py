from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from partrain.errors import ResourceError
from partrain.system.process_limits import reporting_process_limit, require_open_files


@pytest.fixture
def limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_soft_limit_on_open_files_is_raised_only_if_it_is_too_low(limit: tuple[int, int]) -> None:
    hard = limit[1]
    enough = len(os.listdir("/dev/fd")) + 100  # however many files the test process has open
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    require_open_files(5, "one worker")
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (enough, hard)
    require_open_files(100, "20 workers")
    soft, unchanged = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > enough
    assert unchanged == hard


def test_hard_limit_on_open_files_is_a_message_with_the_number_that_is_needed(limit: tuple[int, int]) -> None:
    _, hard = limit
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit")
    expected = rf"^20 workers need about \d+ open files, but this process may open only {hard}; .*ulimit -n"
    with pytest.raises(ResourceError, match=expected):
        require_open_files(hard, "20 workers")


@pytest.mark.parametrize("error", [BlockingIOError(11, "again"), RuntimeError("can't start new thread")])
def test_limit_on_processes_is_a_message(error: Exception) -> None:
    expected = r"ulimit -u.*; N workers need about N \+ 4 of them"
    with pytest.raises(ResourceError, match=expected), reporting_process_limit():
        raise error


def test_other_errors_pass_the_report_of_the_limit() -> None:
    with pytest.raises(RuntimeError, match="another"), reporting_process_limit():
        raise RuntimeError("another")
