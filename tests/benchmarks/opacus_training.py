"""Train a network with Opacus and print how long the steps took: the other side of compare_with_opacus.py.

Runs in an environment of its own that has torch and opacus; knows nothing of partrain. Batches are sampled as Opacus
samples them, from random images: the speed does not depend on them.
"""

import argparse
import json
import time
import warnings

import torch
from opacus import PrivacyEngine
from pytorch_training import build
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(job):
    """Make `warm_up` private steps that do not count and `steps` that do; return their seconds and examples."""
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    images, labels = torch.randn(job["examples"], *job["shape"]), torch.randint(10, (job["examples"],))
    model = build(job["network"], job["shape"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    model, optimizer, batches = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=DataLoader(TensorDataset(images, labels), batch_size=job["batch_size"]),
        noise_multiplier=job["noise_multiplier"],
        max_grad_norm=job["clip"],
    )
    loss_function = nn.CrossEntropyLoss()
    started, num_examples = 0.0, 0
    for step, (x, y) in enumerate(batches):
        if step == job["warm_up"]:
            started, num_examples = time.perf_counter(), 0
        elif step == job["warm_up"] + job["steps"]:
            break
        num_examples += len(x)
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - started, num_examples


def main():
    """Read the job as JSON from the command line; print seconds and examples as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=json.loads)
    warnings.simplefilter("ignore")
    seconds, num_examples = train(parser.parse_args().job)
    print(json.dumps({"seconds": seconds, "examples": num_examples}))


if __name__ == "__main__":
    main()
