"""How MPI gets to know that a host is cut off, so that it takes the ranks there for dead.

Open MPI's ULFM counts a rank as dead when its TCP connection to that rank fails. By default the kernel takes a quarter
of an hour to give up a connection, and never gives up one on which nothing is sent. Each rank must find the failure
itself: Open MPI does not tell the others of it, and they would wait for the dead rank when all agree on the deaths.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import re
import socket
import stat
from collections.abc import Collection
from pathlib import Path

_IPV4 = re.compile(r"\|-- (\S+)\n +/32 host LOCAL")


def own_addresses(proc: Path = Path("/proc/net")) -> list[str]:
    """Return the IP addresses of this host, without those that only it can reach.

    Parameters
    ----------
    proc : the kernel's lists: its IPv4 routes, and its IPv6 addresses in hexadecimal digits.
    """
    found: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    with contextlib.suppress(OSError):
        found.update(map(ipaddress.IPv4Address, _IPV4.findall((proc / "fib_trie").read_text())))
    with contextlib.suppress(OSError):
        for line in (proc / "if_inet6").read_text().splitlines():
            found.add(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    return sorted(str(address) for address in found if not address.is_loopback)


def limit_silence(addresses: Collection[str], seconds: float, probe_seconds: float) -> int:
    """Let the kernel give up the TCP connections of this process to hosts that do not answer.

    The kernel of a host answers even if all its programs are stopped.

    Parameters
    ----------
    addresses : the addresses of the hosts.
    seconds : after how much silence to give up a connection.
    probe_seconds : after how much silence, and how often, to ask on a connection on which nothing is sent.

    Returns
    -------
    How many connections there are now.
    """
    number = 0
    for name in os.listdir("/proc/self/fd") if addresses else ():
        with contextlib.suppress(OSError):  # it is closed by now, or not connected
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                number += _limit_silence(int(name), addresses, seconds, probe_seconds)
    return number


def _limit_silence(descriptor: int, addresses: Collection[str], seconds: float, probe_seconds: float) -> bool:
    """Do so with a socket if it is a TCP connection to one of the addresses; return whether it is."""
    connection = socket.socket(fileno=descriptor)
    try:
        is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
        if not is_tcp or connection.getpeername()[0].partition("%")[0] not in addresses:
            return False
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            connection.setsockopt(socket.IPPROTO_TCP, option, math.ceil(probe_seconds))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(1000 * seconds))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return True
    finally:
        connection.detach()  # its owner closes it
