from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from partrain.config.reader import parse_config
from partrain.config.starter import MNIST, Pictures, write_starter
from partrain.config.yaml_loader import load_yaml
from partrain.network.network import Network

PICTURES = Pictures("cats", "/data/cats", ("2 classes",), 2, 3000, 1.0, (32, 48), 3, has_broken=False)


@pytest.mark.parametrize(
    ("num_train", "size", "num_classes"),
    list(itertools.product([4, 900, 4_000, 50_000, 2_000_000], [(8, 8), (28, 28), (64, 8), (48, 64)], [2, 200])),
)
def test_what_is_written_is_a_valid_configuration_of_a_network_that_fits(
    num_train: int, size: tuple[int, int], num_classes: int
) -> None:
    text = write_starter(replace(PICTURES, num_train=num_train, size=size, num_classes=num_classes))
    config = parse_config(load_yaml(text, "starter"), source="starter")
    network = Network(config.network, (3, *size), num_classes)
    assert network.parameters.size < 1_000_000
    assert config.training.batch_size <= max(16, num_train)
    assert max(map(len, text.splitlines())) <= 120


def test_few_and_unbalanced_images_are_taken_into_account() -> None:
    many = write_starter(replace(PICTURES, num_train=100_000))
    few = write_starter(replace(PICTURES, imbalance=5.0, has_broken=True))
    for words in ("augment:", "dropout", "class_weights: balanced", "on_broken: skip"):
        assert words in few
        assert words not in many


@pytest.mark.parametrize("path", ["/data/a b: 'c' #\"d\\", "/daten/größe/三", "/x\ty\x85z"])
def test_any_path_is_written_so_that_it_is_read_back(path: str) -> None:
    mapping = load_yaml(write_starter(replace(PICTURES, path=path, name="12")), "starter")
    assert (mapping["data"]["path"], mapping["name"]) == (path, "12")


def test_configuration_for_mnist_is_that_of_the_example() -> None:
    from partrain.config.example_files import example_configs

    mapping = load_yaml(MNIST, "starter")
    example = load_yaml(example_configs()["mnist.yaml"].read_text(), "example")
    del example["training"]["tile"]  # the default
    assert mapping == example
