from __future__ import annotations

import numpy as np
import pytest

from partrain.network.parameters import Parameter, ParameterLayout

PARAMETERS = (
    Parameter("conv1.weight", (6, 3, 5, 5), 0.2),
    Parameter("conv1.bias", (6,), 0.0),
    Parameter("dense1.weight", (100, 40), 0.05),
    Parameter("dense1.bias", (100,), 0.0),
)
LAYOUT = ParameterLayout(PARAMETERS)


def test_parameters_stand_one_after_the_other_in_network_order():
    assert LAYOUT.size == 450 + 6 + 4000 + 100
    views = LAYOUT.views(np.arange(LAYOUT.size))
    assert list(views) == [p.name for p in PARAMETERS] == [p.name for p in LAYOUT]
    assert np.array_equal(np.concatenate([view.ravel() for view in views.values()]), np.arange(LAYOUT.size))


def test_views_have_the_shapes_and_share_the_memory():
    vector = np.zeros(LAYOUT.size, np.float32)
    views = LAYOUT.views(vector)
    assert {name: view.shape for name, view in views.items()} == {p.name: p.shape for p in PARAMETERS}
    assert all(np.shares_memory(view, vector) and view.flags.c_contiguous for view in views.values())
    views["conv1.bias"][2] = 7
    assert vector[452] == 7


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (0, "conv1.weight"),
        (449, "conv1.weight"),
        (450, "conv1.bias"),
        (456, "dense1.weight"),
        (4555, "dense1.bias"),
    ],
)
def test_a_place_in_the_vector_belongs_to_a_parameter(place, name):
    assert LAYOUT.name_at(place) == name


def test_an_empty_layout_is_empty():
    layout = ParameterLayout([])
    assert (layout.size, layout.views(np.zeros(0))) == (0, {})


def test_biases_start_at_zero_and_weights_with_their_deviation():
    views = LAYOUT.views(LAYOUT.initial_values(0, "float64"))
    for p in PARAMETERS:
        values = views[p.name]
        if p.initial_deviation == 0:
            assert not values.any()
        else:
            # Five standard errors of the mean and of the deviation of so many normal values.
            assert abs(values.mean()) < 5 * p.initial_deviation / np.sqrt(p.size)
            assert abs(values.std() / p.initial_deviation - 1) < 5 / np.sqrt(2 * p.size)


def test_initial_values_are_a_function_of_the_seed_and_the_name():
    values = LAYOUT.initial_values(3, "float32")
    assert np.array_equal(values, LAYOUT.initial_values(3, "float32"))
    assert not np.array_equal(values, LAYOUT.initial_values(4, "float32"))
    views = LAYOUT.views(values)
    # Neither the other parameters nor the place in the vector count, nor the shape.
    alone = ParameterLayout([Parameter("dense1.weight", (40, 100), 0.05)]).initial_values(3, "float32")
    assert np.array_equal(alone, views["dense1.weight"].ravel())
    renamed = ParameterLayout([Parameter("dense2.weight", (100, 40), 0.05)]).initial_values(3, "float32")
    assert not np.array_equal(renamed, alone)


def test_float32_values_are_the_float64_values_rounded_once():
    exact = LAYOUT.initial_values(1, "float64")
    rounded = LAYOUT.initial_values(1, "float32")
    assert (exact.dtype, rounded.dtype) == (np.float64, np.float32)
    assert np.array_equal(rounded, exact.astype(np.float32))
