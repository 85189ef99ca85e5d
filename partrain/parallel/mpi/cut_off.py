"""How a rank parts from a host that is cut off, so that MPI takes the ranks there for dead.

Open MPI's ULFM has no call for that. But it counts a rank as dead when its TCP connection to that rank fails, and tells
the other ranks. The kernel would take a quarter of an hour to give up a connection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
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


def disconnect(addresses: Collection[str]) -> int:
    """Shut down the TCP connections of this process to these addresses; return how many there were."""
    number = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:  # or it is no socket
            is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
            if is_tcp and connection.getpeername()[0].partition("%")[0] in addresses:
                connection.shutdown(socket.SHUT_RDWR)
                number += 1
    return number
