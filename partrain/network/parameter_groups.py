"""Groups of parameters: each is updated by one rule, with one row of coefficients in each step. Needs no Numba.

They correspond to the parameter groups of PyTorch's optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from partrain.config.schema.optimizer import Optimizer
from partrain.kernels.update_rules import Rule
from partrain.network.parameters import Parameter, ParameterLayout


@dataclass(frozen=True)
class ParameterGroup:
    """What the parameters of a group have in common.

    Attributes
    ----------
    rule : how they change.
    weight_decay : as in the configuration; 0 if it does not apply to them.
    momentum : AVERAGE: the share of the newest statistics.
    """

    rule: Rule
    weight_decay: float = 0.0
    momentum: float = 0.0


class Span(NamedTuple):
    """Elements `first` to `last` - 1 of the flat vector, which all belong to one group."""

    first: int
    last: int
    group: int


class ParameterGroups:
    """The groups of a network's parameters.

    Parameters
    ----------
    parameters : all parameters.
    optimizer : its field of the configuration.

    Attributes
    ----------
    groups : the groups; each has a parameter.
    spans : the elements of the flat vector, in order, as long as possible.
    """

    def __init__(self, parameters: ParameterLayout, optimizer: Optimizer) -> None:
        numbers: dict[ParameterGroup, int] = {}
        self._of_parameters: dict[str, int] = {}
        for p in parameters:
            self._of_parameters[p.name] = numbers.setdefault(_group_of(p, optimizer), len(numbers))
        self.groups = tuple(numbers)
        self.spans = tuple(_joined(parameters, self._of_parameters))

    @property
    def rules(self) -> frozenset[Rule]:
        """The rules of all groups."""
        return frozenset(group.rule for group in self.groups)

    def number_of(self, name: str) -> int:
        """Return the number of a parameter's group."""
        return self._of_parameters[name]

    @property
    def learned(self) -> Iterator[tuple[int, int]]:
        """The parts of the flat vector with parameters that gradients change: all but running statistics."""
        return _without_gaps(
            (span.first, span.last) for span in self.spans if self.groups[span.group].rule != Rule.AVERAGE
        )

    def within(self, size: int) -> Iterator[Span]:
        """Yield the spans of the first `size` elements."""
        for first, last, group in self.spans:
            if first < size:
                yield Span(first, min(last, size), group)


def _group_of(parameter: Parameter, optimizer: Optimizer) -> ParameterGroup:
    if parameter.role == "average":
        return ParameterGroup(Rule.AVERAGE, momentum=parameter.momentum)
    return ParameterGroup(Rule.ADAM, weight_decay=optimizer.weight_decay)


def _joined(parameters: ParameterLayout, numbers: dict[str, int]) -> Iterator[Span]:
    """Yield one span for neighbouring parameters of one group."""
    span: Span | None = None
    for p in parameters:
        first, group = parameters.start(p.name), numbers[p.name]
        if span is not None and span.group == group:
            span = span._replace(last=first + p.size)
            continue
        if span is not None:
            yield span
        span = Span(first, first + p.size, group)
    if span is not None:
        yield span


def _without_gaps(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join parts that follow each other."""
    joined: list[tuple[int, int]] = []
    for first, last in parts:
        if joined and joined[-1][1] == first:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return iter(joined)
