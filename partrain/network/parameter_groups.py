"""Groups of parameters: each is updated by one rule, with one row of coefficients in each step. Needs no Numba.

They correspond to the parameter groups of PyTorch's optimizers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from partrain.kernels.update_rules import Rule
from partrain.network.network import Network
from partrain.network.parameters import Parameter, ParameterLayout

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.optimizer import Optimizer


@dataclass(frozen=True)
class ParameterGroup:
    """What the parameters of a group have in common.

    Attributes
    ----------
    rule : how they change.
    weight_decay : as in the configuration; 0 if it does not apply to them.
    momentum : that of SGD and MUON; AVERAGE: the share of the newest statistics.
    rate : the learning rate, as a multiple of that of the schedule.
    """

    rule: Rule
    weight_decay: float = 0.0
    momentum: float = 0.0
    rate: float = 1.0

    @property
    def has_first_moment(self) -> bool:
        """Whether its parameters have a first moment, or a momentum in its place."""
        return self.rule in (Rule.ADAM, Rule.MUON) or (self.rule == Rule.SGD and self.momentum > 0)

    @property
    def has_second_moment(self) -> bool:
        """Whether its parameters have a second moment."""
        return self.rule == Rule.ADAM

    def __str__(self) -> str:
        name = {Rule.ADAM: "Adam", Rule.SGD: "SGD", Rule.MUON: "Muon", Rule.AVERAGE: "running averages"}[self.rule]
        is_momentum = self.momentum > 0 and self.rule != Rule.AVERAGE
        options = [f"momentum {self.momentum:g}"] * is_momentum
        options += [f"weight decay {self.weight_decay:g}"] * (self.weight_decay > 0)
        return f"{name} with {' and '.join(options)}" if options else name


class Span(NamedTuple):
    """Elements `first` to `last` - 1 of the flat vector, which all belong to one group."""

    first: int
    last: int
    group: int


class ParameterGroups:
    """The groups of a network's parameters. A frozen parameter belongs to none, and nothing changes it.

    Parameters
    ----------
    parameters : all parameters.
    optimizer : its field of the configuration.
    frozen : the names of parameters that stay as they are.
    last_layer : the name of the last layer that has parameters.

    Attributes
    ----------
    groups : the groups; each has a parameter.
    spans : the elements of the flat vector, in order. Neighbouring parameters of a group are one span, except for MUON,
        which updates each parameter as a matrix.
    learned : the parts of the flat vector that gradients change: all but frozen parameters and running averages.
    """

    def __init__(
        self, parameters: ParameterLayout, optimizer: Optimizer, last_layer: str = "", frozen: Collection[str] = ()
    ) -> None:
        numbers: dict[ParameterGroup, int] = {}
        self._of_parameters: dict[str, int] = {}
        self._parameters = parameters
        for p in parameters:
            if p.name in frozen:
                continue
            group = _group_of(p, optimizer, is_last=p.name.rpartition(".")[0] == last_layer)
            self._of_parameters[p.name] = numbers.setdefault(group, len(numbers))
        self.groups = tuple(numbers)
        self.spans = tuple(self._joined())
        self.learned = self._learned()

    @classmethod
    def of(cls, network: Network, optimizer: Optimizer) -> ParameterGroups:
        """Return the groups of a network's parameters."""
        with_weights = [layer for layer in network.trained_layers if any(p.role == "weight" for p in layer.parameters)]
        last_layer = with_weights[-1].name if with_weights else ""
        frozen = {p.name for layer in network.leaf_layers if layer.is_frozen for p in layer.parameters}
        return cls(network.parameters, optimizer, last_layer, frozen)

    @property
    def rules(self) -> frozenset[Rule]:
        """The rules of all groups."""
        return frozenset(group.rule for group in self.groups)

    @property
    def have_first_moments(self) -> bool:
        """Whether a group has first moments."""
        return any(group.has_first_moment for group in self.groups)

    @property
    def have_second_moments(self) -> bool:
        """Whether a group has second moments."""
        return any(group.has_second_moment for group in self.groups)

    @property
    def num_moments(self) -> int:
        """The number of vectors of moments."""
        return self.have_first_moments + self.have_second_moments

    def number_of(self, name: str) -> int:
        """Return the number of a parameter's group."""
        return self._of_parameters[name]

    def group_of(self, name: str) -> ParameterGroup | None:
        """Return a parameter's group; None if it is frozen."""
        return self.groups[self._of_parameters[name]] if name in self._of_parameters else None

    def shape_at(self, first: int) -> tuple[int, ...]:
        """Return the shape of the parameter that begins at element `first` of the vector."""
        return next(p.shape for p in self._parameters if self._parameters.start(p.name) == first)

    def within(self, size: int) -> Iterator[Span]:
        """Yield the spans of the first `size` elements."""
        for first, last, group in self.spans:
            if first < size:
                yield Span(first, min(last, size), group)

    def description(self) -> str:
        """Return which rule updates how many parameters, as `--dry-run` prints it."""
        sizes = [0] * len(self.groups)
        for first, last, group in self.spans:
            sizes[group] += last - first
        parts = [f"{group} for {size:,} parameters" for group, size in zip(self.groups, sizes, strict=True)]
        num_frozen = self._parameters.size - sum(sizes)
        return "; ".join([*parts, *([f"{num_frozen:,} are frozen"] if num_frozen else [])])

    def _learned(self) -> list[tuple[int, int]]:
        parts: list[tuple[int, int]] = []
        for first, last, group in self.spans:
            if self.groups[group].rule == Rule.AVERAGE:
                continue
            begins = parts.pop()[0] if parts and parts[-1][1] == first else first
            parts.append((begins, last))
        return parts

    def _joined(self) -> Iterator[Span]:
        span: Span | None = None
        for p in self._parameters:
            if p.name not in self._of_parameters:
                continue
            first, group = self._parameters.start(p.name), self._of_parameters[p.name]
            is_next = span is not None and (span.last, span.group) == (first, group)
            if span is not None and is_next and self.groups[group].rule != Rule.MUON:
                span = span._replace(last=first + p.size)
                continue
            if span is not None:
                yield span
            span = Span(first, first + p.size, group)
        if span is not None:
            yield span


_KINDS = {"bias": "bias", "scale": "normalisation", "shift": "normalisation"}


def _group_of(parameter: Parameter, o: Optimizer, *, is_last: bool) -> ParameterGroup:
    if parameter.role == "average":
        return ParameterGroup(Rule.AVERAGE, momentum=parameter.momentum)
    weight_decay = 0.0 if _KINDS.get(parameter.role) in o.weight_decay_exclude else o.weight_decay
    by_adam = ParameterGroup(Rule.ADAM, weight_decay)
    if o.name in ("adam", "adamw"):
        return by_adam
    assert o.momentum is not None
    if o.name == "sgd":
        return ParameterGroup(Rule.SGD, weight_decay, o.momentum)
    assert o.adam_lr is not None
    if parameter.role == "weight" and not (is_last and o.adam_last_layer):
        return ParameterGroup(Rule.MUON, weight_decay, o.momentum)
    return replace(by_adam, rate=o.adam_lr / o.lr)
