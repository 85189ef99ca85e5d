"""The exponential moving average of the parameters.

Sources: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992; in the form of PyTorch's
`torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from partrain.kernels import loops_update
from partrain.network.parameter_groups import ParameterGroups

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.training import Ema

Array = NDArray[Any]


class WeightAverage:
    """Follows the parameters.

    a = parameters after the first step; then  a = a + (1-decay) · (parameters - a)

    Running averages of normalisation layers are copied, because they are averages already.

    Parameters
    ----------
    settings : the section of the configuration.
    groups : the groups of the parameters.
    parameters : the parameters; read.

    Attributes
    ----------
    vector : the average; assign to its elements to restore a saved state.
    """

    KERNELS = (loops_update.average_update,)

    def __init__(self, settings: Ema, groups: ParameterGroups, parameters: Array) -> None:
        self._settings, self._learned, self._parameters = settings, groups.learned, parameters
        self.vector = parameters.copy()

    def decay(self, step: int) -> float:
        """Return the decay of `step`, counted from 1."""
        if step == 1:
            return 0.0
        decay = self._settings.decay
        return min(decay, step / (9 + step)) if self._settings.warmup else decay

    def copy(self) -> None:
        """Set the average to the parameters."""
        self.vector[:] = self._parameters

    def update(self, step: int) -> None:
        """Take the parameters after `step` (counted from 1) into the average."""
        decay = self.decay(step)
        if decay == 0:
            self.copy()
            return
        place = 0
        for first, last in (*self._learned, (self.vector.size, self.vector.size)):
            self.vector[place:first] = self._parameters[place:first]
            loops_update.average_update(self._parameters[first:last], 1.0, 1 - decay, self.vector[first:last])
            place = last
