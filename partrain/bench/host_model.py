"""A model of a step on several hosts: predicts the speed-up for more hosts and for faster networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partrain.config.schema import layers as layer_schema
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.values import Section
from partrain.network.network import Network
from partrain.parallel.mpi.step_bytes import step_bytes
from partrain.parallel.update.piece_plan import NANOSECONDS_PER_EXAMPLE, NANOSECONDS_PER_STEP
from partrain.parallel.workers.tiles import Tiling


@dataclass(frozen=True)
class Link:
    """The network between the hosts. The latency between two programs is an assumption, typical of such networks."""

    name: str
    latency_s: float
    bytes_per_second: float


LINKS = (
    Link("1 Gbit/s", 50e-6, 0.9 * 1e9 / 8),
    Link("10 Gbit/s", 25e-6, 0.9 * 10e9 / 8),
    Link("100 Gbit/s", 3e-6, 0.9 * 100e9 / 8),
)


@dataclass(frozen=True)
class HostCosts:
    """A model of a step on h hosts, in seconds; each host has the measured number of workers.

        T(B, h) = serial + compute(⌈tiles(B) / h⌉) + pack(bytes) + rounds(h)·latency + bytes·(h-1)/h / bandwidth
                  + update(B)
        speed-up(B, h) = T(B, 1) / T(B, h), where T(B, 1) has no exchange

    rounds(h) = ⌈log₂ h⌉ (Bruck's allgather); bytes is the number of bytes that all hosts together contribute. Every
    host updates all parameters, so more hosts do not shorten the update. The model ignores the time that hosts wait for
    the slowest host.

    Attributes
    ----------
    network, tiling, dtype : determine the number of bytes.
    serial : the time that depends neither on the batch size nor on the number of hosts.
    compute : the time of one host, by number of tiles; for other numbers, in proportion to the next smaller one.
    batch_size, update : the measured batch size and the time of its update; for other sizes, in proportion to the work.
    pack_s_per_byte : the time to copy one byte into the message and out of it.
    larger : factors for a larger network: of the computation, and of the number of parameters.
    """

    network: Network
    tiling: Tiling
    dtype: str
    serial: float
    compute: Mapping[int, float]
    batch_size: int
    update: float
    pack_s_per_byte: float
    larger: tuple[float, float] = (1.0, 1.0)

    def num_bytes(self, batch_size: int, hosts: int) -> int:
        """Return the number of bytes that all hosts together contribute to a step; 0 for one host."""
        if hosts == 1:
            return 0
        sent = step_bytes(self.network, batch_size, self.tiling, self.dtype, hosts, None)
        return sum(of_rank.total for of_rank in sent) // (hosts - 1)

    def step(self, batch_size: int, hosts: int, link: Link) -> float:
        """Return T(batch_size, hosts)."""
        num_bytes = self.num_bytes(batch_size, hosts)
        longest = -(-self.tiling.num_tiles(batch_size) // hosts)
        known = max(k for k in self.compute if k <= longest)
        work, parameters = self.larger
        compute = work * self.compute[known] * longest / known
        update = parameters * self.update * _update_work(batch_size) / _update_work(self.batch_size)
        wire = math.ceil(math.log2(hosts)) * link.latency_s + num_bytes * (hosts - 1) / hosts / link.bytes_per_second
        return self.serial + compute + num_bytes * self.pack_s_per_byte + wire + update

    def speed_up(self, batch_size: int, hosts: int, link: Link) -> float:
        """Return the speed-up of `hosts` hosts against one host."""
        return self.step(batch_size, 1, link) / self.step(batch_size, hosts, link)


def widened(layers: Sequence[Section], factor: int) -> list[Section]:
    """Return layers with `factor` times as many filters and units; the last layer stays the same."""
    wide: list[Section] = []
    has_wide_input = False
    for layer in layers[:-1]:
        # A shortcut that passes on the image keeps the number of its channels.
        if isinstance(layer, Residual) and not layer.shortcut and not has_wide_input:
            wide.append(layer)
        else:
            wide.append(_wider(layer, factor))
            has_wide_input = has_wide_input or wide[-1] != layer
    return [*wide, layers[-1]]


def _wider(layer: Section, factor: int) -> Section:
    match layer:
        case layer_schema.Conv():
            return layer.model_copy(update={"filters": layer.filters * factor})
        case layer_schema.Dense():
            return layer.model_copy(update={"units": layer.units * factor})
        case Residual():
            branches = {"body": layer.body, "shortcut": layer.shortcut}
            wide = {name: [_wider(inner, factor) for inner in branch] for name, branch in branches.items()}
            return layer.model_copy(update=wide)
    return layer


def _update_work(batch_size: int) -> float:
    return NANOSECONDS_PER_STEP + NANOSECONDS_PER_EXAMPLE * batch_size
