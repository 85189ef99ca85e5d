"""Train a network with PyTorch and print how long the steps took: the other side of compare_with_pytorch.py.

Runs in an environment of its own that has torch; knows nothing of partrain. One process with fused Adam, or
DistributedDataParallel with gloo over several. Images are random: PyTorch's speed does not depend on them. A variant is
"eager", "channels_last", or "compile" (torch.compile, which needs a C++ compiler).
"""

import argparse
import json
import os
import time

import torch
import torch.distributed
import torch.multiprocessing
from torch import nn


class Residual(nn.Module):
    """The sum of two branches."""

    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def build(layers, shape):
    """Make the network that partrain's `network` list describes, for images of `shape` (C, H, W)."""
    modules = []
    x = torch.zeros(2, *shape)
    for layer in layers:
        kind, fields = (layer, {}) if isinstance(layer, str) else next(iter(layer.items()))
        if kind == "conv":
            options = {name: fields[name] for name in ("stride", "padding", "groups", "bias") if name in fields}
            modules.append(nn.Conv2d(x.shape[1], fields["filters"], fields["kernel"], **options))
        elif kind == "batch_norm":
            modules.append(nn.BatchNorm2d(x.shape[1]))
        elif kind == "group_norm":
            modules.append(nn.GroupNorm(fields["groups"], x.shape[1]))
        elif kind == "global_avg_pool":
            modules.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        elif kind == "residual":
            modules.append(Residual(*(build(fields.get(name, []), x.shape[1:]) for name in ("body", "shortcut"))))
        elif kind == "relu":
            modules.append(nn.ReLU())
        elif kind == "tanh":
            modules.append(nn.Tanh())
        elif kind == "max_pool":
            modules.append(nn.MaxPool2d(fields["window"], fields.get("stride")))
        elif kind == "flatten":
            modules.append(nn.Flatten())
        elif kind == "dense":
            modules.append(nn.Linear(x.shape[1], fields["units"]))
        x = modules[-1](x)
    return nn.Sequential(*modules)


def train(rank, job, results):
    """Make `warm_up` steps that do not count and `steps` that do; rank 0 returns their seconds."""
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    model = build(job["network"], job["shape"])
    images, labels = torch.randn(4096, *job["shape"]), torch.randint(10, (4096,))
    if job["variant"] == "channels_last":
        model, images = (each.to(memory_format=torch.channels_last) for each in (model, images))
    if job["variant"] == "compile":
        model = torch.compile(model)
    if job["processes"] > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{job['rendezvous']}", rank=rank, world_size=job["processes"]
        )
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    loss_function = nn.CrossEntropyLoss()
    share = max(1, job["batch_size"] // job["processes"])
    order = torch.randperm(4096)
    started = 0.0
    for step in range(job["warm_up"] + job["steps"]):
        if step == job["warm_up"]:
            started = time.perf_counter()
        first = step * share % (4096 - share)
        batch = order[first : first + share]
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        loss.item()
    seconds = time.perf_counter() - started
    if rank == 0:
        results.put(seconds)
    if job["processes"] > 1:
        torch.distributed.barrier()
        # Nothing is taken down: one run in ten or so aborted then ("terminate called without an active exception").
        os._exit(0)


def main():
    """Read the job as JSON from the command line; print `seconds` and torch's version as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=json.loads)
    job = parser.parse_args().job
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    if job["processes"] == 1:
        train(0, job, results)
    else:
        torch.multiprocessing.spawn(train, (job, results), nprocs=job["processes"])
    print(json.dumps({"seconds": results.get(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
