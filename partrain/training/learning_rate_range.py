"""The learning-rate range test: the loss of each step while the rate rises exponentially.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv 1506.01186, section 3.3.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass, field, replace

from partrain.config.schema.config import Config
from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.kernels.elementary import exp, log
from partrain.training.initial_parameters import InitialParameters, require_fit
from partrain.training.plan import TrainingPlan
from partrain.training.resources import TrainingResources, training_resources
from partrain.training.session import Session
from partrain.training.step.composition import compose_step, make_model
from partrain.training.step.training_step import NotFiniteInStep

# The test ends when the smoothed loss is this many times its minimum.
DIVERGED = 4.0
# A loss is smoothed over this share of all steps, on each side.
SMOOTHED_SHARE = 0.04
# A suggestion needs a loss that falls by this share, and by this multiple of how much single batches differ from it.
LEAST_FALL = 0.05
LEAST_FALL_IN_NOISE = 3.0


@dataclass
class RangeTest:
    """The steps that a test has made.

    Attributes
    ----------
    num_steps : the number of steps that were planned.
    rates : the learning rate of each step that was made.
    losses : the loss of each step's batch, before the step changed the parameters; all are finite.
    ending : why the test ended before the highest rate; None: it did not.
    diverged : whether it ended because the rate was too large.
    """

    num_steps: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    ending: str | None = None
    diverged: bool = False

    @property
    def smoothed(self) -> list[float]:
        """The losses, averaged with triangular weights over steps before and after, so that no loss is delayed."""
        return [self.smoothed_at(place) for place in range(len(self.losses))]

    def smoothed_at(self, place: int) -> float:
        """Return the smoothed loss of one step."""
        total = weights = 0.0
        for other in range(max(0, place - self._radius), min(len(self.losses), place + self._radius + 1)):
            weight = self._radius + 1 - abs(other - place)
            total += weight * self.losses[other]
            weights += weight
        return total / weights

    @property
    def smallest(self) -> int | None:
        """The step, counted from 0, with the smallest smoothed loss; None without steps."""
        smoothed = self.smoothed
        return min(range(len(smoothed)), key=smoothed.__getitem__, default=None)

    @property
    def steepest(self) -> int | None:
        """The step, counted from 0, before the minimum at which the smoothed loss falls fastest; None: hardly."""
        smoothed, smallest, radius = self.smoothed, self.smallest, self._radius
        if not smallest:
            return None
        noise = sum(abs(self.losses[place] - smoothed[place]) for place in range(smallest)) / smallest
        if smoothed[0] - smoothed[smallest] < max(LEAST_FALL * smoothed[0], LEAST_FALL_IN_NOISE * noise):
            return None
        falls = {
            place: smoothed[max(0, place - radius)] - smoothed[min(smallest, place + radius)]
            for place in range(smallest)
        }
        return max(falls, key=falls.__getitem__, default=None)

    @property
    def still_falls(self) -> bool:
        """Whether the smoothed loss still falls at the last rate, as far as the test shows."""
        return not self.diverged and self.smallest is not None and self.smallest + self._radius >= len(self.losses)

    @property
    def suggestion(self) -> float | None:
        """The rate between those of the steepest step and of the smallest loss, on a logarithmic scale, of two digits.

        The first is too small for a whole training, and the other about to be too large. Each of the two varies more
        with the seed and the number of steps than their mean. None if the loss hardly falls, or still does.
        """
        if self.steepest is None or self.smallest is None or self.still_falls:
            return None
        mean = math.sqrt(self.rates[self.steepest] * self.rates[self.smallest])
        return float(f"{mean:.1e}")

    @property
    def _radius(self) -> int:
        return max(1, round(SMOOTHED_SHARE * self.num_steps))


def run_range_test(
    config: Config,
    lowest: float,
    highest: float,
    num_steps: int,
    session: Session,
    initial: InitialParameters | None = None,
) -> RangeTest:
    """Train with a rising rate in place of the configured rate and schedule. Nothing is written.

    Parameters
    ----------
    config : the configuration.
    lowest, highest : the rates of the first and the last step.
    num_steps : the number of steps, at least 2.
    session : the command that trains, without MPI. A signal ends the test between two steps.
    initial : the parameters to start from; None: random ones.

    Raises
    ------
    UserError
        The input is wrong.
    FailedRun
        The workers failed.
    Interrupted
        A signal arrived before the first step.

    Side effects
    ------------
    While it trains, processes and shared memory.
    """
    training = config.training.model_copy(update={"schedule": Schedule(), "stop_early": None})
    config = config.model_copy(update={"training": training})
    with training_resources(config, None, session, functools.partial(require_fit, initial)) as resources:
        plan = _with_rates(resources.plan, lowest, _factor(lowest, highest, num_steps))
        session.messages.say(
            f"{plan.network.parameters.size:,} parameters, {plan.dataset.name} from {plan.dataset.source}, "
            f"{num_steps:,} steps of {training.batch_size} with rates from {lowest:g} to {highest:g}"
        )
        return _make_steps(plan, num_steps, resources, session, initial)


def _make_steps(
    plan: TrainingPlan,
    num_steps: int,
    resources: TrainingResources,
    session: Session,
    initial: InitialParameters | None,
) -> RangeTest:
    test, least = RangeTest(num_steps), float("inf")
    model = make_model(plan, resources.arrays, session.update_threads)
    if initial is not None:
        model.set_parameters(initial.starting_point(plan, session.messages)[0])
    training_step = compose_step(plan, resources.arrays, resources.group, model)
    progress = session.messages.progress(
        first_step=0, last_step=num_steps, num_epochs=-(-num_steps // plan.steps_per_epoch)
    )
    with contextlib.closing(model), contextlib.ExitStack() as at_end:
        at_end.callback(lambda: progress.close(is_complete=test.ending is None))
        for step in range(1, num_steps + 1):
            rate = model.learning_rate(step)
            if session.interruption.received is not None:
                test.ending = f"interrupted after {step - 1} steps"
                break
            try:
                batch = training_step.make(step).batch
            except NotFiniteInStep:
                test.ending, test.diverged = f"at the rate {rate:.1e} the loss or a gradient is not finite", True
                break
            progress.step(step, -(-step // plan.steps_per_epoch), batch.loss, batch.num_examples)
            if not batch.num_examples:  # batches that are drawn at random may be empty
                continue
            test.rates.append(rate)
            test.losses.append(batch.loss)
            newest = test.smoothed_at(len(test.losses) - 1)
            least = min(least, newest)
            if newest > DIVERGED * least:
                test.ending, test.diverged = f"at the rate {rate:.1e} the loss is {DIVERGED:g} times its minimum", True
                break
    return test


def _factor(lowest: float, highest: float, num_steps: int) -> float:
    return float(exp(log(highest / lowest) / (num_steps - 1)))


def _with_rates(plan: TrainingPlan, lowest: float, factor: float) -> TrainingPlan:
    """Return the plan with a schedule that multiplies the rate by `factor` in each step."""
    training = plan.config.training
    # The schema refuses factors above 1, which nobody means in a training.
    schedule = Schedule(name="step", every_steps=1).model_copy(update={"factor": factor})
    training = training.model_copy(update={"optimizer": _scaled(training.optimizer, lowest), "schedule": schedule})
    return replace(plan, config=plan.config.model_copy(update={"training": training}))


def _scaled(optimizer: Optimizer, lr: float) -> Optimizer:
    """Return the optimizer with the learning rate `lr`; Muon's second rate keeps its proportion."""
    adam_lr = optimizer.adam_lr
    if adam_lr is not None:
        adam_lr *= lr / optimizer.lr
    return optimizer.model_copy(update={"lr": lr, "adam_lr": adam_lr})
