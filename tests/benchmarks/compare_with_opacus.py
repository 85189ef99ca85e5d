"""Measure private steps of partrain against Opacus on this machine, in alternation, and print the ratio.

    python tests/benchmarks/compare_with_opacus.py [--rounds 3] [--opacus-python PYTHON]

Opacus gets an environment of its own in a temporary folder (`pip install torch==2.13.0 opacus`), unless
`--opacus-python` names one. Both sides make private steps, with noise of multiplier 1, of the network of
configs/mnist.yaml (batch 256), and of configs/mnist-private.yaml (batch 1024), on two processors; a ratio is the median
over the rounds of (Opacus' seconds an example / partrain's). Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from compare_with_pytorch import CONFIGS, DIGIT, HERE, TORCH, environment, run_partrain

PRIVATE = (HERE / "configs" / "private.yaml", CONFIGS / "mnist-private.yaml")
STEPS, OPACUS_STEPS = 390, 100


def run_opacus(path: Path, python: str, folder: Path) -> float:
    """Train the network of a configuration with Opacus; return the seconds an example."""
    config = yaml.safe_load(path.read_text())
    job = {
        "network": config["network"],
        "shape": DIGIT,
        "threads": 2,
        "examples": config["data"]["train_examples"],
        "batch_size": config["training"]["batch_size"],
        "clip": config["training"]["per_example"]["clip"],
        "noise_multiplier": 1.0,
        "warm_up": 5,
        "steps": OPACUS_STEPS,
    }
    command = [python, str(HERE / "opacus_training.py"), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(folder))
    result = json.loads(done.stdout.splitlines()[-1])
    return float(result["seconds"] / result["examples"])


def opacus_python(given: str | None, folder: Path) -> str:
    """Return a Python that has opacus; install it into a temporary environment if none is given."""
    if given is not None:
        return given
    subprocess.run([sys.executable, "-m", "venv", str(folder / "opacus")], check=True)
    python = str(folder / "opacus" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", TORCH, "opacus"], check=True)
    return python


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--opacus-python", help="a Python that has torch and opacus")
    options = parser.parse_args()
    settings = (
        "training.privacy.noise_multiplier=1",
        "training.privacy.target_epsilon=null",
        f"training.max_steps={STEPS}",
        "logging.evaluate_every_epochs=null",
        "data.validation_examples=0",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = opacus_python(options.opacus_python, folder)
        for path in PRIVATE:
            ours, theirs = [], []
            for _ in range(options.rounds):
                summary, _ = run_partrain(path, 2, folder, *settings)
                ours.append(summary["train_seconds"] / summary["examples"])
                theirs.append(run_opacus(path, python, folder))
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            us = [1e6 * statistics.median(values) for values in (ours, theirs)]
            print(f"{path.name}, µs an example: partrain {us[0]:.1f}, Opacus {us[1]:.1f}; {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
