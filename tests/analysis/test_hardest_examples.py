"""`partrain examples` finds the examples with the largest losses and gradient norms; wrong labels come first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partrain.data.label_noise import flipped_examples
from tests.program import ROOT, Result


@pytest.fixture(scope="module")
def noisy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of the article's network with 2 % wrong labels: on MNIST if available, else on synthetic digits."""
    from partrain.interface.command_line import main

    has_mnist = (Path(os.environ.get("PARTRAIN_DATA_DIR", "/nowhere")) / "mnist").is_dir()
    run = tmp_path_factory.mktemp("noisy") / "run"
    changes = [
        f"data.name={'mnist' if has_mnist else 'synthetic-digits'}",
        "data.label_noise=0.02",
        "data.train_examples=10000",
        "data.validation_examples=100",
        "logging.plots=false",
        "training.schedule.warmup_steps=50",
    ]
    options = [word for change in changes for word in ("--set", change)]
    assert (
        main(["--config", str(ROOT / "configs/mnist.yaml"), *options, "--run-dir", str(run), "--workers", "2", "-q"])
        == 0
    )
    return run


@pytest.mark.slow
def test_most_of_the_hundred_largest_losses_belong_to_wrong_labels(
    noisy_run: Path, call_partrain: Callable[..., Result]
) -> None:
    result = call_partrain("examples", noisy_run, "--top", 100, "--json", "-q")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    top = facts["largest_loss"]
    assert len(top) == 100
    assert [example["loss"] for example in top] == sorted((e["loss"] for e in top), reverse=True)
    gradients = [example["gradient_norm"] for example in facts["largest_gradient"]]
    assert gradients == sorted(gradients, reverse=True)
    assert sum(example["flipped"] for example in top) >= 90
    record = json.loads((noisy_run / "run.json").read_text())["data"]["label_noise"]
    assert record["num_flipped"] == 200
    assert record["flipped"] == flipped_examples(10_000, 0.02, 0).tolist()
    assert {e["index"] for e in top if e["flipped"]} <= set(record["flipped"])
    assert {path.name for path in (noisy_run / "plots").iterdir()} >= {
        "largest-loss-train.png",
        "largest-gradient-train.png",
    }


def test_gradient_norms_agree_with_the_loops(noisy_run: Path, call_partrain: Callable[..., Result]) -> None:
    from partrain.analysis.trained_run import load_trained_run
    from partrain.data.loading import load_dataset
    from partrain.kernels.compiler.loading import load
    from partrain.parallel.update.reduction import GradientReduction
    from partrain.parallel.workers.step_examples import NO_CHANGES
    from partrain.parallel.workers.tile_computer import tile_kernels
    from tests.network.networks import Batch

    facts = json.loads(call_partrain("examples", noisy_run, "--split", "test", "--top", 3, "--json", "-q").stdout)
    trained = load_trained_run(noisy_run, "last", print)
    config = trained.config
    dataset = load_dataset(config.data, config.seed, say=print, warn=print)
    kernels = tile_kernels("loops", trained.network.layers, NO_CHANGES)
    load((*kernels, *GradientReduction.kernels("loops")), "float64")
    normalisation = trained.normalisation
    for example in facts["largest_gradient"]:
        assert "flipped" not in example
        image = dataset.test.images[example["index"]][None].astype(np.float64)
        x = ((image - normalisation.mean[0]) / normalisation.std[0]).astype(np.float32)
        batch = Batch(trained.network, "loops", trained.parameters.astype(np.float64), 1, 1)
        losses, gradient = batch.gradient(x, np.array([example["label"]]))
        assert example["gradient_norm"] == pytest.approx(float(np.sqrt((gradient**2).sum())), rel=1e-3)
        assert example["loss"] == pytest.approx(float(losses[0]), rel=1e-3)


def test_table_names_the_measure_and_the_label_noise(noisy_run: Path, call_partrain: Callable[..., Result]) -> None:
    result = call_partrain("examples", noisy_run, "--top", 5)
    assert "largest loss of 10,000 train examples" in result.stdout
    assert "data.label_noise changed" in result.stdout


def test_averaged_weights_of_a_run_without_them_are_refused(call_partrain: Callable[..., Result]) -> None:
    refusal = call_partrain("examples", ROOT / "runs/example-mnist", "--weights", "ema").refusal
    assert "has no averaged weights, because the run was trained without training.ema" in refusal
