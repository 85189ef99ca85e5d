from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from partrain.analysis.export.parameter_files import encode_npz, encode_safetensors
from partrain.analysis.trained_run import TrainedRun, load_trained_run
from tests.saved_runs import CLASS_NAMES, NORMALISATION, write_saved_run


@pytest.fixture
def saved(tmp_path: Path) -> TrainedRun:
    write_saved_run(tmp_path / "run")
    return load_trained_run(tmp_path / "run", "last", pytest.fail)


def test_safetensors_hold_the_parameters_alone_under_the_names_and_in_the_shapes_of_pytorch(
    saved: TrainedRun, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_safetensors(saved))
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "conv1.weight": (3, 2, 3, 2),
        "conv1.bias": (3,),
        "conv2.weight": (4, 3, 2, 2),
        "conv2.bias": (4,),
        "dense1.weight": (7, 36),
        "dense1.bias": (7,),
        "dense2.weight": (3, 7),
        "dense2.bias": (3,),
    }
    for name, parameter in saved.network.parameters.views(saved.parameters).items():
        np.testing.assert_array_equal(tensors[name], parameter, strict=True)
    assert json.loads(metadata["mean"]) == NORMALISATION["mean"]
    assert json.loads(metadata["std"]) == NORMALISATION["std"]
    assert tuple(json.loads(metadata["class_names"])) == CLASS_NAMES
    assert metadata["format"] == "pt"


def test_equal_networks_are_equal_files(saved: TrainedRun) -> None:
    assert len({encode_safetensors(saved) for _ in range(8)}) == 1
    assert len({encode_npz(saved) for _ in range(2)}) == 1


def test_npz_needs_no_pickle_and_holds_all_that_is_needed(saved: TrainedRun, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(encode_npz(saved))
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays) == {*saved.network.parameters.views(saved.parameters), "mean", "std", "class_names"}
    for name, parameter in saved.network.parameters.views(saved.parameters).items():
        np.testing.assert_array_equal(arrays[name], parameter, strict=True)
    assert arrays["mean"].tolist() == NORMALISATION["mean"]
    assert arrays["std"].tolist() == NORMALISATION["std"]
    assert tuple(arrays["class_names"]) == CLASS_NAMES
