"""Sheets of the examples that a network finds hardest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from partrain.analysis.plots.run_plots import can_draw, write_pictures
from partrain.data.batches import SplitRange
from partrain.data.dataset import Dataset
from partrain.store.run_directory import RunDirectory
from partrain.system.messages import Messages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More pictures on a sheet take long to lay out, and are too small to look at.
MOST_PICTURES = 50


def write_example_sheets(
    run: RunDirectory, dataset: Dataset, split: SplitRange, facts: Mapping[str, Any], messages: Messages
) -> None:
    """Draw the examples of a ranking, and write the sheets into the run's folder `plots`.

    Parameters
    ----------
    run : the sheets go there.
    dataset, split : what the examples are of.
    facts : as example_ranking.Ranking has them.
    messages : where to speak.

    Side effects
    ------------
    Writes `largest-loss-<split>.png` and `largest-gradient-<split>.png`. Needs no lock.
    """
    if can_draw(messages):
        write_pictures(run, _draw(dataset, split, facts), messages)


def _draw(dataset: Dataset, split: SplitRange, facts: Mapping[str, Any]) -> Iterator[tuple[str, Figure | None]]:
    from partrain.analysis.plots.class_labels import ClassLabels
    from partrain.analysis.plots.images import draw_hardest

    labels = ClassLabels.of(facts["classes"])
    what = f"{facts['num_examples']:,} {facts['split']} examples"
    for key, title in (("largest_loss", "The largest losses"), ("largest_gradient", "The largest gradients")):
        examples = facts[key][:MOST_PICTURES]
        images = [dataset.files[split.file].images[split.first + example["index"]] for example in examples]
        name = f"{key.replace('_', '-')}-{facts['split']}"
        yield name, draw_hardest(images, examples, f"{title} of {what}", labels)
