from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from partrain.config.reader import read_config
from partrain.training.mpi.assignment import Assignment


def test_job_comes_out_as_it_went_in(small_config: Callable[..., Path]) -> None:
    config = read_config(small_config())
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.full((), 2.5),
        "c": np.arange(8.0).reshape(2, 4).T,
    }
    metadata = {"step": 7, "best": None, "normalisation": {"mean": [0.1], "std": [1e-30]}}
    job = Assignment.decode(Assignment.encode(Assignment(config, tensors, metadata)))
    assert job is not None
    assert job.config == config
    assert job.metadata == metadata
    assert list(job.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert (job.tensors[name].dtype, job.tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert np.array_equal(job.tensors[name], tensor)


def test_no_job_is_told_from_a_job(small_config: Callable[..., Path]) -> None:
    assert Assignment.decode(Assignment.encode(None)) is None
    job = Assignment.decode(Assignment.encode(Assignment(read_config(small_config()))))
    assert job is not None
    assert (job.tensors, job.metadata) == ({}, None)
