"""A network link of a given rate and delay between two network namespaces, in user space.

A process reads packets from a TUN device in each namespace, and writes each into the other when a link would have
delivered it. tc with tbf and netem does the same, but many kernels are built without netem. Packets have up to 64 KiB
(segmentation offload), so the process has little to do: some 2,000 packets a second each way at 1 Gbit/s.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02
CLONE_NEWNET, PR_SET_TIMERSLACK = 0x40000000, 29
HEADER_BYTES = 10  # struct virtio_net_hdr, before each packet
# On Ethernet, a segment of 1,448 bytes of data takes 1,538 bytes: headers, preamble and gap included.
SEGMENT_BYTES, WIRE_BYTES = 1448, 1538
# Packets that wait for the link. More wait in the kernel, as they would before a network card.
QUEUE_BYTES = 2**20
# select may wake up this late, so the process looks at the clock instead.
SPIN_SECONDS = 30e-6


def open_tun(namespace: str, name: str) -> int:
    """Create a TUN device in a network namespace; return its descriptor. This process then is in that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(Path("/run/netns") / namespace) as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return tun


class _Direction:
    """Carries the packets of one direction."""

    def __init__(self, source: int, target: int, bits_per_s: float, delay_s: float) -> None:
        self.source, self._target = source, target
        self._seconds_per_byte, self._delay_s = 8 / bits_per_s, delay_s
        self._free_at = 0.0
        self._waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        self._num_bytes = 0

    @property
    def is_ready(self) -> bool:
        return self._num_bytes < QUEUE_BYTES

    @property
    def due_at(self) -> float:
        return self._waiting[0][0] if self._waiting else float("inf")

    def read(self) -> None:
        packet = os.read(self.source, 2**17)
        size = len(packet) - HEADER_BYTES
        on_wire = size + (WIRE_BYTES - SEGMENT_BYTES) * -(-size // SEGMENT_BYTES)
        self._free_at = max(self._free_at, time.monotonic()) + on_wire * self._seconds_per_byte
        self._waiting.append((self._free_at + self._delay_s, packet))
        self._num_bytes += size

    def deliver(self) -> None:
        while self.due_at <= time.monotonic():
            packet = self._waiting.popleft()[1]
            self._num_bytes -= len(packet) - HEADER_BYTES
            with contextlib.suppress(OSError):  # the device is down, or its queue is full: the packet is lost
                os.write(self._target, packet)


def carry(tuns: Sequence[int], bits_per_s: float, delay_s: float) -> None:
    """Carry packets between two TUN devices, for ever."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    directions = [_Direction(*pair, bits_per_s, delay_s) for pair in (tuns, tuns[::-1])]
    while True:
        for direction in directions:
            direction.deliver()
        wait_s = min(direction.due_at for direction in directions) - time.monotonic() - SPIN_SECONDS
        listened = {direction.source: direction for direction in directions if direction.is_ready}
        readable, *_ = select.select(list(listened), (), (), None if wait_s == float("inf") else max(0.0, wait_s))
        for source in readable:
            with contextlib.suppress(BlockingIOError):
                listened[source].read()


@contextlib.contextmanager
def shaped_link(addresses: dict[str, str], bits_per_s: float, delay_s: float) -> Iterator[None]:
    """Join two network namespaces within the block.

    Parameters
    ----------
    addresses : for each namespace the address that its end of the link gets, in one network of 24 bits.
    bits_per_s, delay_s : the rate of each direction, and how long a bit travels.

    Raises
    ------
    OSError
        The kernel has no TUN devices, or this process is not root.
    """
    ready, made = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tuns = [open_tun(namespace, "pt0") for namespace in addresses]
            os.write(made, b"1")
            carry(tuns, bits_per_s, delay_s)
        finally:
            os._exit(1)
    os.close(made)
    try:
        if not os.read(ready, 1):
            raise OSError("no TUN device could be made: it takes root and /dev/net/tun")
        for namespace, address in addresses.items():
            for words in (("addr", "add", f"{address}/24", "dev", "pt0"), ("link", "set", "pt0", "mtu", "1500", "up")):
                subprocess.run(["ip", "-n", namespace, *words], check=True)
            # Linux' own congestion control, whatever this machine was configured to use.
            network = [f"{address.rpartition('.')[0]}.0/24", "dev", "pt0", "src", address, "congctl", "cubic"]
            subprocess.run(["ip", "-n", namespace, "route", "replace", *network], check=True)
        yield
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
