"""The plots of a run: curves, recall, confusion matrix, filters, misclassified examples."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from partrain.analysis.plots.plot_files import can_draw, write_figures
from partrain.errors import RunError
from partrain.network.layers import Conv2d
from partrain.network.network import Network
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system.messages import Messages

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_plots(
    run: RunDirectory,
    network: Network,
    parameters: NDArray[Any],
    images_NCHW: NDArray[Any],
    report: Mapping[str, Any],
    messages: Messages,
) -> None:
    """Draw the plots of a run, and write them into its directory `plots`; a failure is a warning.

    Parameters
    ----------
    run : the run; its metrics are read.
    network, parameters : the network, and its vector of parameters.
    images_NCHW : the images of the evaluated split.
    report : the evaluation, see `classification_report`; with its split.
    messages : messages to the user.

    Side effects
    ------------
    Writes `cost.png`, `accuracy.png`, `filters.png`, and `recall-<split>.png`, `confusion-<split>.png`,
    `misclassified-<split>.png`, as far as there is something to draw. Takes no lock.
    """
    if not can_draw(messages):
        return
    try:
        rows = read_metrics(run.metrics_path)
    except (RunError, OSError) as error:
        messages.warn(f"no curves are drawn: {error}")
        rows = []
    write_figures(run, _draw(network, parameters, images_NCHW, report, rows), messages)


def load_drawing(messages: Messages) -> None:
    """Import what drawing needs, if Matplotlib is installed, so that processes that are forked later have it."""
    if can_draw(messages):
        for name in ("canvas", "class_labels", "class_plots", "filters", "image_sheets", "training_curves"):
            importlib.import_module(f"partrain.analysis.plots.{name}")


def _draw(
    network: Network,
    parameters: NDArray[Any],
    images_NCHW: NDArray[Any],
    report: Mapping[str, Any],
    rows: list[dict[str, Any]],
) -> Iterator[tuple[str, Figure | None]]:
    """Yield names and figures, one at a time because figures take memory."""
    from partrain.analysis.plots.canvas import subject
    from partrain.analysis.plots.class_labels import ClassLabels
    from partrain.analysis.plots.class_plots import draw_confusion, draw_recall
    from partrain.analysis.plots.filters import draw_filters
    from partrain.analysis.plots.image_sheets import draw_misclassified
    from partrain.analysis.plots.training_curves import draw_accuracy, draw_loss

    labels, suffix = ClassLabels.of(report["classes"]), report["split"]
    yield "cost", draw_loss(rows)
    yield "accuracy", draw_accuracy(rows)
    yield f"recall-{suffix}", draw_recall(report, labels)
    yield f"confusion-{suffix}", draw_confusion(report, labels)
    convolution = next((layer for layer in network.leaf_layers if isinstance(layer, Conv2d)), None)
    if convolution is not None:
        yield "filters", draw_filters(network.parameters.views(parameters)[convolution.parameters[0].name])
    examples = report["most_confidently_wrong"]
    images = [images_NCHW[example["index"]] for example in examples]
    num_wrong = sum(a != b for a, b in zip(report["labels"], report["predictions"], strict=True))
    examples_of = subject(report["num_examples"], report["split"])
    yield f"misclassified-{suffix}", draw_misclassified(images, examples, num_wrong, examples_of, labels)
