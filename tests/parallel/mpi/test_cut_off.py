from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from partrain.parallel.mpi import liveness
from partrain.parallel.mpi.cut_off import limit_silence, own_addresses
from partrain.store.run_lock import RunLock

ROUTES = """Local:
  +-- 10.5.0.0/24 2 0 2
     |-- 10.5.0.0
        /24 link UNICAST
     |-- 10.5.0.7
        /32 host LOCAL
     |-- 10.5.0.255
        /32 link BROADCAST
  +-- 127.0.0.0/8 2 0 2
     |-- 127.0.0.1
        /32 host LOCAL
"""
IPV6 = """00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000007 02 40 00 80     eth0
"""


def test_own_addresses_are_those_that_other_hosts_can_reach(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(ROUTES)
    (tmp_path / "if_inet6").write_text(IPV6)
    assert own_addresses(tmp_path) == ["10.5.0.7", "fd00::7"]
    assert own_addresses(tmp_path / "nothing") == []


def test_the_kernel_gives_up_connections_to_the_named_addresses_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        there, _ = server.accept()
        with there:
            assert limit_silence({"10.5.0.7"}, 90.0, 5.0) == 0
            assert (given_up_after_ms(here), probed_after_s(here)) != (90_000, 5)
            assert limit_silence({"127.0.0.1"}, 90.0, 5.0) >= 2
            for connection in (here, there):
                assert (given_up_after_ms(connection), probed_after_s(connection)) == (90_000, 5)
            here.sendall(b"still open")
            assert there.recv(20) == b"still open"


def given_up_after_ms(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def probed_after_s(connection: socket.socket) -> int:
    is_probed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return is_probed * connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


def test_lock_of_a_run_can_still_be_released(tmp_path: Path) -> None:
    before, after = RunLock(tmp_path / "run.lock"), RunLock(tmp_path / "run.lock")
    before.acquire()
    limit_silence({"127.0.0.1"}, 90.0, 5.0)
    before.release()
    after.acquire()
    after.release()


def test_process_that_was_stopped_for_long_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "clock_gettime", lambda clock: now)
    stops = liveness.Stops()
    now += liveness.SILENT_SECONDS / 2
    assert not stops.were_long()
    now += 2 * liveness.SILENT_SECONDS
    assert stops.were_long()
    assert stops.were_long()
