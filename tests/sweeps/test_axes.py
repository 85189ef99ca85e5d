from __future__ import annotations

import pytest

from partrain.errors import ConfigError
from partrain.store.sweep_directory import Axis
from partrain.sweeps.axes import grid, parse_seeds, parse_settings


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1e-3,3e-3", [0.001, 0.003]),
        ("a=adam, sgd", ["adam", "sgd"]),
        ("a=null,true,2", [None, True, 2]),
        ("a=[1,2],[3,3]", [[1, 2], [3, 3]]),
        ("a={shift: 2},null", [{"shift": 2}, None]),
    ],
)
def test_values_are_yaml_separated_by_commas(text: str, values: list[object]) -> None:
    assert parse_settings([text]) == ([], [Axis(key="a", values=values)])


def test_a_single_value_holds_for_all_trainings() -> None:
    texts = ["a=1", "b=[1,2]", "c={x: 1}"]
    assert parse_settings(texts) == (texts, [])


@pytest.mark.parametrize(
    ("text", "low", "high", "scale"),
    [
        ("a=1e-4..1e-2", 1e-4, 1e-2, "log"),
        ("a=0.1..0.5", 0.1, 0.5, "linear"),
        ("a=log:0.1..0.5", 0.1, 0.5, "log"),
        ("a=linear:1..64", 1, 64, "linear"),
        ("a=-1..1", -1, 1, "linear"),
        ("a=0..0.5", 0.0, 0.5, "linear"),
    ],
)
def test_ranges_are_drawn_on_a_logarithmic_scale_if_their_ends_are_far_apart(
    text: str, low: float, high: float, scale: str
) -> None:
    _, [axis] = parse_settings([text])
    assert (axis.low, axis.high, axis.scale, axis.values) == (low, high, scale, [])
    assert type(axis.low) is type(axis.high) is type(low)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "write KEY=VALUE"),
        (["=1,2"], "write KEY=VALUE"),
        (["a="], "there is no value"),
        (["a=1,2", "a=3"], "a is given twice"),
        (["a=1,2,1"], "the value 1 is given twice"),
        (["a=1,[2"], "--set a=1,\\[2: the value"),
        (["a=x..y"], "a range is LOW..HIGH with two numbers"),
        (["a=2..1"], "the range is empty"),
        (["a=log:0..1"], "must begin above 0"),
        (["seed=0,1"], "give several seeds with --seeds"),
    ],
)
def test_other_texts_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(texts)


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds("0..4") == [0, 1, 2, 3, 4]
    assert parse_seeds("7, 0..1,3") == [7, 0, 1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is neither"),
        ("0..", "is neither"),
        ("-1", "is neither"),
        ("1.5", "is neither"),
        ("0-4", "is neither"),
        ("4..0", "the range 4..0 is empty"),
        ("0..2,1", "the seed 1 is given twice"),
        ("0..999999999", "more than 100,000 seeds"),
    ],
)
def test_malformed_seeds_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_seeds(text)


def test_a_grid_is_every_combination() -> None:
    axes = [Axis(key="a", values=[1, 2]), Axis(key="b", values=["x", "y"])]
    assert grid(axes, 1) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert grid([], 3) == [{}]
    with pytest.raises(ConfigError, match="a range needs a sampler"):
        grid([Axis(key="a", low=0.0, high=1.0)], 1)
    with pytest.raises(ConfigError, match="more than 100,000 trainings"):
        grid(axes, 30_000)
