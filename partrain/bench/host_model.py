"""A model of a step on several hosts: predicts the speed-up for more hosts and for faster networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from partrain.config.schema import layers as layer_schema
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.training import Training
from partrain.config.schema.values import Section
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.mpi.owner_messages import StepShares
from partrain.parallel.mpi.ownership import Ownership, choose_ownership
from partrain.parallel.mpi.step_bytes import StepBytes, step_bytes
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


# The processor's time to send a message to one other rank, and to receive one: an assumption, typical of TCP.
MESSAGE_SECONDS = 2e-6


@dataclass(frozen=True)
class HostCosts:
    """A model of a step on h hosts, in seconds; each host has the measured number of workers.

        T(B, 1) = serial + compute(B) + update(P, B)
        T(B, h) = serial + compute(n) + wire(bytes of all) + pack + update(P, B)        all ranks make the whole update
        T(B, h) = serial + compute(n) + sums(Q, n) + wire(sums) + update(Q / h, 1)      with owners of Q parameters
                  + wire(new parameters, factors) + copies + update(P - Q, B)
        sums(Q, n) = update(Q, n) - update(Q, 1)
        wire(b) = latency + (h - 1) · MESSAGE_SECONDS + b / bandwidth
        speed-up(B, h) = T(B, 1) / T(B, h)

    n is the largest number of tiles of a host, and 1 is one tile; P the number of parameters; b is what a host sends to
    all others together. The model ignores the time that hosts wait for the slowest host.

    Attributes
    ----------
    network, groups, training, tiling : determine who owns what, and the number of bytes.
    serial : the time that depends neither on the batch size nor on the number of hosts.
    compute : the time of one host, by number of tiles; for other numbers, in proportion to the next smaller one.
    update : the time of the update of `updated` parameters, by number of tiles.
    updated : the number of parameters of the measured network.
    copy_s_per_byte : the time to copy one byte.
    work : a factor of the computation, for a larger network.
    """

    network: Network
    groups: ParameterGroups
    training: Training
    tiling: Tiling
    serial: float
    compute: Mapping[int, float]
    update: Mapping[int, float]
    updated: int
    copy_s_per_byte: float
    work: float = 1.0

    def sent(self, batch_size: int, hosts: int) -> StepBytes:
        """Return the bytes that a host sends in a step, at most."""
        ownership = self._ownership(batch_size, hosts)
        sent = step_bytes(self.network, batch_size, self.tiling, self.training.dtype, hosts, ownership)
        return max(sent, key=lambda of_host: of_host.total)

    def step(self, batch_size: int, hosts: int, link: Link) -> float:
        """Return T(batch_size, hosts)."""
        tiling, num_parameters = self.tiling, self.network.parameters.size
        ownership = self._ownership(batch_size, hosts)
        if ownership is None:
            longest = -(-tiling.num_tiles(batch_size) // hosts)
            time = self.serial + self._compute(longest) + self._update(num_parameters, tiling.num_tiles(batch_size))
            if hosts > 1:
                # A host packs what it sends once, and unpacks what it receives: together about what all hosts have.
                num_bytes = self.sent(batch_size, hosts).total
                time += self._wire(num_bytes, hosts, link) + num_bytes * hosts / (hosts - 1) * self.copy_s_per_byte
            return time
        shares, sent = StepShares.of(ownership, batch_size), self.sent(batch_size, hosts)
        most = tiling.num_tiles(max(last - first for first, last in shares.examples))
        owned = sum(ownership.size_of(rank) for rank in range(hosts))
        of_rank, of_all = max(map(len, shares.nodes)), sum(map(len, shares.nodes))
        # Sums are written and copied into the message; received ones are added; new parameters are copied.
        copied = owned * np.dtype(self.training.dtype).itemsize * (2 * of_rank + of_all / hosts + 1)
        return (
            self.serial
            + self._compute(most)
            + self._update(owned, most)
            - self._update(owned, 1)
            + self._wire(sent.sums + sent.results, hosts, link)
            + self._update(owned, 1) / hosts
            + self._wire(sent.parameters + sent.factors, hosts, link)
            + copied * self.copy_s_per_byte
            + self._update(num_parameters - owned, tiling.num_tiles(batch_size))
        )

    def speed_up(self, batch_size: int, hosts: int, link: Link) -> float:
        """Return the speed-up of `hosts` hosts against one host."""
        return self.step(batch_size, 1, link) / self.step(batch_size, hosts, link)

    def _ownership(self, batch_size: int, hosts: int) -> Ownership | None:
        return choose_ownership(self.network, self.groups, self.training, batch_size, self.tiling, hosts)

    def _compute(self, num_tiles: int) -> float:
        known = max(k for k in self.compute if k <= num_tiles)
        return self.work * self.compute[known] * num_tiles / known

    def _update(self, num_parameters: int, num_tiles: int) -> float:
        tiles, seconds = zip(*sorted(self.update.items()), strict=True)
        if num_tiles <= tiles[-1]:
            time = float(np.interp(num_tiles, tiles, seconds))
        else:  # each further tile takes as long as those up to here did on average
            time = seconds[0] + (seconds[-1] - seconds[0]) * (num_tiles - tiles[0]) / max(1, tiles[-1] - tiles[0])
        return time * num_parameters / self.updated

    @staticmethod
    def _wire(num_bytes: int, hosts: int, link: Link) -> float:
        return link.latency_s + (hosts - 1) * MESSAGE_SECONDS + num_bytes / link.bytes_per_second


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
