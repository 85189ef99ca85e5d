from __future__ import annotations

import threading
import time

import pytest

from partrain.parallel.update.thread_team import PieceThreads


@pytest.mark.parametrize("number", [1, 2, 5])
def test_each_piece_is_called_once_in_each_run_whoever_comes_late(number: int) -> None:
    threads = PieceThreads(number)
    for run in range(20):
        called: list[int] = []

        def call(piece: int, called: list[int] = called, run: int = run) -> None:
            if run % 3 == 0 and threading.current_thread() is not threading.main_thread():
                time.sleep(0.001)
            called.append(piece)

        threads.run(range(run % 7), call)
        assert sorted(called) == list(range(run % 7))
    threads.close()


def test_several_threads_work_and_end_at_close() -> None:
    threads, before, seen = PieceThreads(3), threading.active_count(), set()
    meet = threading.Barrier(3, timeout=60)

    def call(piece: int) -> None:
        seen.add(threading.get_ident())
        meet.wait()

    threads.run(range(3), call)
    assert len(seen) == 3
    assert threading.active_count() == before + 2
    threads.close()
    assert threading.active_count() == before
