"""Sheets of the hardest examples of a trained network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from partrain.analysis.plots.plot_files import can_draw, write_figures
from partrain.store.run_directory import RunDirectory
from partrain.system.messages import Messages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More images would make a sheet unwieldy.
MAX_IMAGES = 50


def write_example_sheets(
    run: RunDirectory, images_NCHW: NDArray[Any], facts: Mapping[str, Any], messages: Messages
) -> None:
    """Draw the hardest examples, and write the sheets into the run's directory `plots`.

    Parameters
    ----------
    run : the run.
    images_NCHW : the images of the evaluated split.
    facts : the hardest examples, see `HardestExamples`.
    messages : messages to the user.

    Side effects
    ------------
    Writes `largest-loss-<split>.png` and `largest-gradient-<split>.png`. Takes no lock.
    """
    if can_draw(messages):
        write_figures(run, _draw(images_NCHW, facts), messages)


def _draw(images_NCHW: NDArray[Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, Figure | None]]:
    from partrain.analysis.plots.canvas import subject
    from partrain.analysis.plots.class_labels import ClassLabels
    from partrain.analysis.plots.image_sheets import draw_hardest

    labels = ClassLabels.of(facts["classes"])
    examples_of = subject(facts["num_examples"], facts["split"])
    for key, title in (("largest_loss", "Largest losses"), ("largest_gradient", "Largest gradients")):
        examples = facts[key][:MAX_IMAGES]
        images = [images_NCHW[example["index"]] for example in examples]
        name = f"{key.replace('_', '-')}-{facts['split']}"
        yield name, draw_hardest(images, examples, f"{title} of {examples_of}", labels)
