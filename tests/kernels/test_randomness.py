from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels.randomness import permutation, philox_key, philox_words, standard_normals, uniforms

ONES = 2**64 - 1
# Random123's kat_vectors, philox4x64 with 10 rounds: counter, key, result (the words of pi in the third).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


def whole_number(words):
    return sum(word << (64 * place) for place, word in enumerate(words))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_the_generator_gives_the_published_vectors(counter, key, expected):
    # NumPy adds 1 to the counter before each block.
    before = (whole_number(counter) - 1) % 2**256
    words = np.random.Philox(key=whole_number(key), counter=before).random_raw(4)
    assert words.tolist() == list(expected)


FROZEN_KEY = "6a831d9eebaba46a"
FROZEN_WORDS = ["81871062a59ab522", "6c96ec5fb02285b9", "bd8220ccc632343d"]


def test_the_words_of_a_run_never_change():
    # A checkpoint of today goes on tomorrow: these words are part of the format.
    words = philox_words(3, seed=0, purpose="shuffle", epoch=1, name="")
    assert [f"{word:016x}" for word in words.tolist()] == FROZEN_WORDS


def test_words_are_a_pure_function_of_what_they_are_for():
    first = philox_words(100, seed=5, purpose="shuffle", epoch=2)
    np.random.seed(0)
    philox_words(7, seed=5, purpose="another")
    assert np.array_equal(philox_words(100, seed=5, purpose="shuffle", epoch=2), first)
    assert np.array_equal(philox_words(10, seed=5, purpose="shuffle", epoch=2), first[:10])
    assert first.dtype == np.uint64


def test_another_seed_purpose_epoch_or_name_gives_other_words():
    purposes = [
        {"seed": seed, "purpose": purpose, "epoch": epoch, "name": name}
        for seed in (0, 1, 11, 2**63 - 1)
        for purpose in ("shuffle", "initial values")
        for epoch in (0, 1, 11)
        for name in ("", "conv1.weight", "conv2.weight")
    ]
    words = np.concatenate([philox_words(50, **purpose) for purpose in purposes])
    assert np.unique(words).size == words.size


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    standard_normals(10, seed=0, purpose="test")
    permutation(10, seed=0, purpose="test")
    assert np.array_equal(np.random.random(3), expected)


def test_uniforms_lie_from_0_to_below_1_and_are_even():
    values = uniforms(100_000, seed=0, purpose="test")
    assert 0 <= values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    counts, _ = np.histogram(values, 20, (0, 1))
    assert np.abs(counts - 5000).max() < 6 * np.sqrt(5000)


def test_uniforms_are_the_upper_53_bits_of_the_words():
    words = philox_words(100, seed=3, purpose="test")
    expected = [(word >> 11) / 2**53 for word in words.tolist()]
    assert uniforms(100, seed=3, purpose="test").tolist() == expected


def test_the_largest_word_is_still_below_1(monkeypatch):
    monkeypatch.setattr("partrain.kernels.randomness.philox_words", lambda n, **_: np.full(n, ONES, np.uint64))
    assert uniforms(1, seed=0, purpose="test")[0] == 1 - 2.0**-53
    assert np.isfinite(standard_normals(2, seed=0, purpose="test")).all()


def test_the_smallest_word_is_a_finite_normal(monkeypatch):
    monkeypatch.setattr("partrain.kernels.randomness.philox_words", lambda n, **_: np.zeros(n, np.uint64))
    assert np.isfinite(standard_normals(2, seed=0, purpose="test")).all()


def test_normals_have_the_moments_of_the_normal_distribution():
    values = standard_normals(200_000, seed=0, purpose="test")
    assert values.dtype == np.float64
    error = 1 / np.sqrt(values.size)
    assert abs(values.mean()) < 5 * error
    assert abs(values.std() - 1) < 5 * error
    assert abs((values**3).mean()) < 5 * np.sqrt(15) * error
    assert abs((values**4).mean() - 3) < 5 * np.sqrt(96) * error
    assert abs(np.mean(values[::2] * values[1::2])) < 5 * np.sqrt(2) * error


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_number_of_normals_can_be_drawn(count):
    values = standard_normals(count, seed=0, purpose="test")
    assert np.array_equal(values, standard_normals(8, seed=0, purpose="test")[:count])


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_permutation_has_every_item_once(count):
    order = permutation(count, seed=0, purpose="test")
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


def test_permutations_put_every_item_in_every_place():
    orders = np.array([permutation(5, seed=0, purpose="test", epoch=epoch) for epoch in range(2000)])
    counts = np.array([[np.count_nonzero(orders[:, place] == item) for item in range(5)] for place in range(5)])
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)


def test_of_equal_words_the_earlier_item_comes_first(monkeypatch):
    monkeypatch.setattr("partrain.kernels.randomness.philox_words", lambda n, **_: np.zeros(n, np.uint64))
    assert permutation(20, seed=0, purpose="test").tolist() == list(range(20))


def test_the_keys_of_what_is_drawn_for_examples_never_change_and_share_nothing():
    names = {"seed": 0, "purpose": "dropout", "epoch": 1, "name": "dropout1"}
    key = philox_key(**names)
    assert f"{int(key):016x}" == FROZEN_KEY
    others = ({"seed": 1}, {"purpose": "augmentation"}, {"epoch": 0}, {"name": "dropout2"})
    assert len({int(philox_key(**(names | other))) for other in others} | {int(key)}) == 5
