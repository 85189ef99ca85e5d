"""Updates parameters of which some have owners: each rank updates what it owns, and gets the rest from the others.

New values are written beside the old ones. When all ranks know that all of them are finite, all ranks commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops
from partrain.network.network import Network
from partrain.network.optimizer import ParameterOptimizer
from partrain.parallel.mpi.owned_moments import OwnedMoments
from partrain.parallel.mpi.owner_exchange import OwnerExchange
from partrain.parallel.mpi.owner_messages import GRADIENT, NONE, PARAMETER, SECOND_MOMENT, SecondMessage
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.workers.tiles import Tiling

Array = NDArray[Any]


class OwnedUpdate(ParameterUpdate):
    """Makes the update of a step together with the other ranks; all of them call the same methods.

    Parameters
    ----------
    network, kernels, arrays, tiling, dtype, optimizer, num_threads : as for `ParameterUpdate`.
    exchange : has the sums of what this rank owns.
    """

    def __init__(
        self,
        network: Network,
        kernels: str,
        arrays: Mapping[str, Array],
        tiling: Tiling,
        dtype: str,
        optimizer: ParameterOptimizer,
        num_threads: int | None,
        exchange: OwnerExchange,
    ) -> None:
        ownership = exchange.ownership
        super().__init__(network, kernels, arrays, tiling, dtype, optimizer, num_threads, ownership.shared)
        self.moments: OwnedMoments = OwnedMoments(optimizer, arrays, ownership, exchange.ranks)
        self._exchange, self._ownership, self._rank = exchange, ownership, exchange.rank
        size = ownership.size_of(exchange.rank)
        vectors = (optimizer.parameters, optimizer.first_moment, optimizer.second_moment)
        # Beside the old ones: those of what this rank owns.
        self._parameters, self._first, self._second = (np.empty(size * (v.size > 0), v.dtype) for v in vectors)
        self._gradient = np.zeros_like(optimizer.parameters[:0])

    def apply(self, num_examples: int, step: int) -> NotFinite | None:
        """See `ParameterUpdate`."""
        message = self._exchange.send_owned(num_examples, self._parameters, self._update_owned(num_examples, step))
        if _first(message, GRADIENT) != NONE:
            return self._not_finite_gradient(num_examples)
        shared = None if self._ownership.shared.is_empty else super().apply(num_examples, step)
        if shared is not None and shared.is_gradient:
            return self._not_finite_gradient(num_examples)
        self._commit(message, step)
        if shared is not None or min(_first(message, PARAMETER), _first(message, SECOND_MOMENT)) != NONE:
            return self._not_finite_of(message)
        return None

    def gradient_sum(self, num_examples: int) -> Array:
        """See `ParameterUpdate`; the sums of what others own are collected from them."""
        message = self._exchange.send_owned(num_examples, self._exchange.sum, (NONE, NONE, NONE))
        gradient_sum = super().gradient_sum(num_examples)  # 0 where there are owners
        for rank, owned in enumerate(message.owned):
            self._ownership.scatter(rank, owned, gradient_sum)
        return gradient_sum

    def _update_owned(self, num_examples: int, step: int) -> tuple[int, int, int]:
        """Write the new values of what this rank owns beside the old ones; return which ones are not finite."""
        optimizer, sums = self._optimizer, self._exchange.sum
        if (bad := self._element(loops.first_not_finite(sums))) != NONE:
            return bad, NONE, NONE
        for new, old in (
            (self._parameters, optimizer.parameters),
            (self._first, optimizer.first_moment),
            (self._second, optimizer.second_moment),
        ):
            if new.size:
                self._ownership.gather(self._rank, old, new)
        rows, place = optimizer.coefficients(num_examples, step), 0
        for span in self._ownership.pieces[self._rank]:
            part = slice(place, place + span.last - span.first)
            vectors = self._first[part], self._second[part], self._parameters[part]
            optimizer.change(span, sums[part], rows[span.group], *vectors)
            place = part.stop
        bad_parameter, bad_moment = (self._element(loops.first_not_finite(v)) for v in (self._parameters, self._second))
        return NONE, bad_parameter, bad_moment

    def _element(self, place: int) -> int:
        return NONE if place < 0 else self._ownership.element(self._rank, place)

    def _commit(self, message: SecondMessage, step: int) -> None:
        optimizer = self._optimizer
        message.new_parameters.make()
        for new, old in ((self._first, optimizer.first_moment), (self._second, optimizer.second_moment)):
            if new.size:
                self._ownership.scatter(self._rank, new, old)
        self.moments.commit(step)

    def _not_finite_gradient(self, num_examples: int) -> NotFinite:
        name = self.first_not_finite(self.gradient_sum(num_examples))
        assert name is not None
        return NotFinite(name, is_gradient=True)

    def _not_finite_of(self, message: SecondMessage) -> NotFinite:
        """Return the parameter or second moment that is not finite; all ranks return the same."""
        if (bad := self.first_not_finite(self._optimizer.parameters)) is not None:
            return NotFinite(bad, is_gradient=False)
        own = loops.first_not_finite(self._optimizer.second_moment)
        place = min(_first(message, SECOND_MOMENT), NONE if own < 0 else own)
        name = self._network.parameters.name_at(place)
        return NotFinite(f"Adam's second moment of {name}", is_gradient=False)


def _first(message: SecondMessage, word: int) -> int:
    return min(int(words[word]) for words in message.outcomes)
