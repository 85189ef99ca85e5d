from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from partrain.config.reader import read_config
from partrain.training.mpi.initial_state import InitialState


def test_state_is_the_same_on_the_other_ranks(small_config: Callable[..., Path]) -> None:
    config = read_config(small_config())
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.full((), 2.5),
        "c": np.arange(8.0).reshape(2, 4).T,
    }
    metadata = {"step": 7, "best": None, "normalisation": {"mean": [0.1], "std": [1e-30]}}
    state = InitialState.from_bytes(InitialState(config, tensors, metadata).to_bytes())
    assert state.config == config
    assert state.metadata == metadata
    assert state.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (state.tensors[name].dtype, state.tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert np.array_equal(state.tensors[name], tensor)


def test_state_without_tensors_has_none_on_the_other_ranks(small_config: Callable[..., Path]) -> None:
    state = InitialState.from_bytes(InitialState(read_config(small_config())).to_bytes())
    assert (state.tensors, state.metadata) == ({}, None)


def test_format_is_safetensors(small_config: Callable[..., Path]) -> None:
    tensors = {"a": np.arange(6.0)}
    content = InitialState(read_config(small_config()), tensors).to_bytes()
    assert np.array_equal(safetensors.numpy.load(content)["a"], tensors["a"])
