from __future__ import annotations

from collections.abc import Mapping

import pytest

from partrain.network.layers import Shape
from partrain.training.parameter_matching import match_parameters

Shapes = dict[str, Shape]


def of_layers(**weights: Shape) -> Shapes:
    """Return the shapes of weights and biases; _ in a name stands for a dot."""
    shapes: Shapes = {}
    for layer, shape in weights.items():
        name = layer.replace("_", ".")
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def layers_of(matched: Mapping[str, str]) -> dict[str, str]:
    """Return the pairs of layers; each pair has the same tensors."""
    assert all(name.rpartition(".")[2] == tensor.rpartition(".")[2] for name, tensor in matched.items())
    return {name.rpartition(".")[0]: tensor.rpartition(".")[0] for name, tensor in matched.items()}


CONV1, CONV2, DENSE1, DENSE2 = (8, 1, 5, 5), (16, 8, 5, 5), (128, 64), (10, 128)
NETWORK = of_layers(conv1=CONV1, conv2=CONV2, dense1=DENSE1, dense2=DENSE2)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "module.net.backbone."])
def test_prefix_of_all_names_is_removed(prefix: str) -> None:
    found = {prefix + name: shape for name, shape in NETWORK.items()}
    assert match_parameters(NETWORK, found) == {name: prefix + name for name in NETWORK}


def test_prefix_of_the_whole_network_is_removed_beside_other_tensors() -> None:
    found = {f"model.{name}": shape for name, shape in NETWORK.items()} | {"criterion.weight": (10,)}
    assert match_parameters(NETWORK, found) == {name: f"model.{name}" for name in NETWORK}


def test_wrapper_within_a_name_is_removed() -> None:
    found = {name.replace(".", "._orig_mod."): shape for name, shape in NETWORK.items()}
    assert layers_of(match_parameters(NETWORK, found)) == {
        layer: f"{layer}._orig_mod" for layer in ("conv1", "conv2", "dense1", "dense2")
    }


def test_numbers_of_a_sequential_are_matched_in_their_order_also_from_10_on() -> None:
    needed = of_layers(conv1=CONV1, conv2=CONV2, dense1=DENSE1)
    found = of_layers(features_10=CONV2, features_9=CONV1, classifier_1=DENSE1)
    assert layers_of(match_parameters(needed, found)) == {
        "conv1": "features.9",
        "conv2": "features.10",
        "dense1": "classifier.1",
    }


def test_kinds_of_layers_are_matched_separately_by_name_or_order() -> None:
    found = of_layers(conv1=CONV1, conv2=CONV2, fc1=DENSE1, fc2=DENSE2)
    assert layers_of(match_parameters(NETWORK, found)) == {
        "conv1": "conv1",
        "conv2": "conv2",
        "dense1": "fc1",
        "dense2": "fc2",
    }


def test_last_layer_of_other_classes_belongs_to_the_networks_last_layer() -> None:
    found = of_layers(features_0=CONV1, features_3=CONV2, fc1=DENSE1, fc2=(1000, 128))
    assert layers_of(match_parameters(NETWORK, found))["dense2"] == "fc2"


@pytest.mark.parametrize(
    "found",
    [
        of_layers(entry=CONV2, stem=CONV1),  # sorted by name, both have another shape
        of_layers(features_0=CONV1),
        of_layers(features_0=CONV1, features_3=CONV2, features_6=CONV2),
        of_layers(conv2=CONV2, features_0=CONV1),  # by its order, conv2 would be the network's conv1
    ],
    ids=["other-shapes", "fewer", "more", "known-name-in-another-place"],
)
def test_order_is_not_trusted(found: Shapes) -> None:
    layers = layers_of(match_parameters(of_layers(conv1=CONV1, conv2=CONV2), found))
    assert layers == {layer: layer for layer in ("conv1", "conv2") if f"{layer}.weight" in found}


def test_network_with_more_layers_takes_the_ones_with_its_names() -> None:
    needed = of_layers(conv1=CONV1, conv2=CONV2, conv3=(16, 16, 3, 3))
    found = of_layers(conv1=CONV1, conv2=CONV2)
    assert layers_of(match_parameters(needed, found)) == {"conv1": "conv1", "conv2": "conv2"}


def test_batch_normalisation_is_no_other_normalisation() -> None:
    statistics = {f"{{}}.{name}": (8,) for name in ("weight", "bias", "running_mean", "running_var")}
    plain = {"{}.weight": (8,), "{}.bias": (8,)}

    def named(tensors: Shapes, layer: str) -> Shapes:
        return {name.format(layer): shape for name, shape in tensors.items()}

    needed = named(statistics, "batch_norm1") | named(plain, "group_norm1")
    found = named(plain, "layers.1") | named(statistics, "layers.4")
    assert layers_of(match_parameters(needed, found)) == {"batch_norm1": "layers.4", "group_norm1": "layers.1"}


def test_tensors_without_a_layer_belong_to_a_network_of_one() -> None:
    needed = of_layers(dense1=DENSE1)
    found = {"weight": DENSE1, "bias": DENSE1[:1]}
    assert match_parameters(needed, found) == {"dense1.weight": "weight", "dense1.bias": "bias"}
