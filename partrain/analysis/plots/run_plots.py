"""All pictures of a run, drawn and written into its folder `plots`; without matplotlib, how to get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from partrain.data.batches import SplitRange
from partrain.data.dataset import Dataset
from partrain.errors import RunError
from partrain.network.layers import Conv2d
from partrain.network.network import Network
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system.durable_files import make_folders, write_durably
from partrain.system.messages import Messages

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_plots(
    run: RunDirectory,
    network: Network,
    parameters: NDArray[Any],
    dataset: Dataset,
    split: SplitRange,
    report: Mapping[str, Any],
    messages: Messages,
) -> None:
    """Draw the pictures of a run, and write them; what cannot be drawn or written is a warning.

    Parameters
    ----------
    run : its metrics are read, and the pictures go there.
    network, parameters : the network, and the vector of its parameters.
    dataset, split : the images that `report` is of.
    report : the figures of an evaluation, see `evaluation.report_of`.
    messages : where to speak.

    Side effects
    ------------
    Writes `cost.png`, `accuracy.png`, `filters.png`, and `recall-<split>.png`, `confusion-<split>.png`,
    `misclassified-<split>.png`: those that there is something to draw for. Needs no lock.
    """
    if not can_draw(messages):
        return
    try:
        rows = read_metrics(run.metrics_path)
    except (RunError, OSError) as error:
        messages.warn(f"no curves are drawn: {error}")
        rows = []
    write_pictures(run, _draw(network, parameters, dataset, split, report, rows), messages)


def can_draw(messages: Messages) -> bool:
    """Return whether matplotlib is there; if not, say how to get it."""
    try:
        from partrain.analysis.plots import canvas  # noqa: F401 (whether it can be imported is the question)
    except ModuleNotFoundError:
        messages.say("no pictures are drawn: matplotlib is not installed: pip install 'partrain[plots]'")
        return False
    except (ImportError, ValueError) as error:  # of a broken installation; of a setting that matplotlib refuses
        messages.warn(f"no pictures are drawn: matplotlib cannot be imported: {error}")
        return False
    return True


def write_pictures(run: RunDirectory, pictures: Iterator[tuple[str, Figure | None]], messages: Messages) -> None:
    """Write pictures into the run, by name; where that cannot be done, it is a warning. Needs matplotlib."""
    from partrain.analysis.plots import canvas

    num_written = 0
    try:
        make_folders(run.plots_path)
        with canvas.house_style():
            for name, figure in pictures:
                if figure is not None:
                    write_durably(run.plots_path / f"{name}.png", canvas.to_png(figure))
                    num_written += 1
    except OSError as error:
        messages.warn(f"{run.plots_path}: the pictures cannot be written: {error.strerror or error}")
        return
    messages.say(f"{num_written} pictures are in {run.plots_path}")


def _draw(
    network: Network,
    parameters: NDArray[Any],
    dataset: Dataset,
    split: SplitRange,
    report: Mapping[str, Any],
    rows: list[dict[str, Any]],
) -> Iterator[tuple[str, Figure | None]]:
    """Yield the pictures by name, one at a time: a figure takes memory."""
    from partrain.analysis.plots.class_labels import ClassLabels
    from partrain.analysis.plots.classes import draw_confusion, draw_recall
    from partrain.analysis.plots.curves import draw_accuracy, draw_cost
    from partrain.analysis.plots.images import draw_filters, draw_misclassified

    labels, suffix = ClassLabels.of(report["classes"]), report["split"]
    yield "cost", draw_cost(rows)
    yield "accuracy", draw_accuracy(rows)
    yield f"recall-{suffix}", draw_recall(report, labels)
    yield f"confusion-{suffix}", draw_confusion(report, labels)
    convolution = next((layer for layer in network.layers if isinstance(layer, Conv2d)), None)
    if convolution is not None:
        yield "filters", draw_filters(network.parameters.views(parameters)[convolution.parameters[0].name])
    examples = report["most_confidently_wrong"]
    images = [dataset.files[split.file].images[split.first + example["index"]] for example in examples]
    num_wrong = sum(a != b for a, b in zip(report["labels"], report["predictions"], strict=True))
    what = f"{report['num_examples']:,} {report['split']} examples"
    yield f"misclassified-{suffix}", draw_misclassified(images, examples, num_wrong, what, labels)
