"""Shapes: M images; N examples; C, H, W channels, rows, columns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from partrain.kernels.compiler.loading import load
from partrain.kernels.mixing import draw_mixing, mix
from tests.kernels.test_philox import philox_by_the_paper

KEY = np.uint64(0x0123456789ABCDEF)
MIXUP, CUTMIX = (1.0, 0.0), (0.0, 1.0)


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    load([draw_mixing, mix], "float32")


def draw(examples, probabilities, *, alphas=(1.0, 1.0), num_train=60_000, size=(28, 28), key=KEY):
    examples = np.array(examples, np.int64)
    N = len(examples)
    partners, shares, pixels, boxes = np.full(N, -1), np.full(N, np.nan), np.full(N, np.nan), np.full((N, 4), -1)
    draw_mixing(key, examples, num_train, probabilities, alphas, size, partners, shares, pixels, boxes)
    return partners, shares, pixels, boxes


def words_of(example):
    words = [philox_by_the_paper((block, 0, example, 0), (0x89ABCDEF, 0x01234567), 32) for block in range(2)]
    return [int(words[number % 2][number // 2]) for number in range(8)]


def test_draws_are_those_of_the_formulas():
    H, W, num_train, alphas = 11, 30, 1234, (0.4, 1.7)
    partners, shares, pixels, boxes = draw(range(200), (0.3, 0.5), alphas=alphas, num_train=num_train, size=(H, W))
    seen = set()
    for n in range(200):
        method, u, v, high, low, row, column, _ = words_of(n)
        kind = "mixup" if method / 2**32 < 0.3 else "cutmix" if method / 2**32 < 0.8 else "none"
        seen.add(kind)
        if kind == "none":
            assert (partners[n], shares[n], pixels[n], boxes[n].tolist()) == (n, 1, 1, [0, 0, 0, 0])
            continue
        assert partners[n] == ((high << 32) + low) * num_train >> 64
        alpha = alphas[kind == "cutmix"]
        u, v = (u + 0.5) / 2**32, (v + 0.5) / 2**32
        t = np.sqrt(2 * alpha * (u ** (-1 / alpha) - 1)) * np.cos(2 * np.pi * v)  # Student's, 2 alpha degrees
        share = 0.5 + 0.5 * t / np.sqrt(2 * alpha + t**2)
        if kind == "mixup":
            assert (shares[n], pixels[n]) == pytest.approx((share, share), abs=1e-14)
            assert boxes[n].tolist() == [0, 0, 0, 0]
            continue
        assert pixels[n] == 1
        rows, columns = int(H * np.sqrt(1 - share)), int(W * np.sqrt(1 - share))
        top, left = (row * H >> 32) - rows // 2, (column * W >> 32) - columns // 2
        first_i, end_i, first_j, end_j = boxes[n].tolist()
        assert (first_i, end_i, first_j, end_j) == (
            max(top, 0),
            min(top + rows, H),
            max(left, 0),
            min(left + columns, W),
        )
        assert shares[n] == 1 - (end_i - first_i) * (end_j - first_j) / (H * W)
    assert seen == {"mixup", "cutmix", "none"}


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.5, 300.0])
def test_share_of_mixup_has_the_beta_distribution(alpha):
    shares = draw(range(100_000), MIXUP, alphas=(alpha, 1.0))[1]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_share_has_the_beta_distribution_where_most_shares_are_almost_0_or_1():
    shares = draw(range(100_000), MIXUP, alphas=(0.03, 1.0))[1]
    lower = shares[shares < 0.5]
    assert len(lower) == pytest.approx(50_000, abs=700)
    # Compared by their logarithms: they lie between 1e-300 and 1/2.
    assert stats.kstest(lower, lambda x: 2 * stats.beta(0.03, 0.03).cdf(x)).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.001, 1000.0])
def test_extreme_alphas_give_shares_between_0_and_1(alpha):
    shares = draw(range(10_000), MIXUP, alphas=(alpha, 1.0))[1]
    assert np.isfinite(shares).all()
    assert ((shares >= 0) & (shares <= 1)).all()
    assert shares.mean() == pytest.approx(0.5, abs=0.02)


def test_probabilities_are_those_of_the_methods():
    partners, _, pixels, boxes = draw(range(100_000), (0.25, 0.6), size=(224, 224))
    cut = boxes.any(axis=1)  # one pixel of 50,000 is cut in any case but that of a share of 1
    mixed = pixels < 1
    assert not (cut & mixed).any()
    assert mixed.mean() == pytest.approx(0.25, abs=0.005)
    assert cut.mean() == pytest.approx(0.6, abs=0.005)
    assert (partners == np.arange(100_000)).mean() == pytest.approx(0.15, abs=0.005)


@pytest.mark.parametrize("num_train", [1, 2, 60_000, 2**32 - 1])
def test_partners_are_uniform_in_the_training_set(num_train):
    partners = draw(range(50_000), MIXUP, num_train=num_train)[0]
    assert partners.min() >= 0
    assert partners.max() < num_train
    uniform = (partners + np.random.default_rng(0).uniform(0, 1, 50_000)) / num_train
    assert stats.kstest(uniform, "uniform").pvalue > 0.01


def test_boxes_cover_as_much_as_those_of_the_authors_code():
    H, W, alpha, rng = 32, 24, 1.0, np.random.default_rng(0)
    _, shares, _, boxes = draw(range(50_000), CUTMIX, size=(H, W))
    side = np.sqrt(1 - rng.beta(alpha, alpha, 50_000))
    covered = 1
    for size in (H, W):
        length, centre = (size * side).astype(int), rng.integers(0, size, 50_000)
        first = centre - length // 2
        covered = covered * (np.minimum(first + length, size) - np.maximum(first, 0))
    pixels = np.rint((1 - shares) * H * W)
    assert pixels.mean() == pytest.approx(covered.mean(), rel=0.01)
    assert stats.ks_2samp(pixels, covered).pvalue > 0.01
    # Places that mirror each other are covered equally often.
    counts = np.zeros((H, W))
    for first_i, end_i, first_j, end_j in boxes[:20_000]:
        counts[first_i:end_i, first_j:end_j] += 1
    np.testing.assert_allclose(counts, counts[::-1, ::-1], rtol=0.15)


def test_draw_is_a_function_of_key_and_example_alone():
    together = draw([5, 2, 9], (0.5, 0.5))
    for alone, rows in zip(draw([2], (0.5, 0.5)), together, strict=True):
        assert np.array_equal(alone[0], rows[1])
    others = draw([5, 2, 9], (0.5, 0.5), key=np.uint64(7))
    assert not np.array_equal(others[0], together[0])
    assert len(set(draw(range(1000), MIXUP)[1])) == 1000


@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
@pytest.mark.parametrize("shape_CHW", [(1, 28, 28), (3, 9, 13), (2, 1, 1)])
def test_images_are_averaged_outside_the_box_and_replaced_within(pixel_type, shape_CHW):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, *shape_CHW)).astype(pixel_type)
    if pixel_type == "float32":
        images += rng.standard_normal(images.shape).astype(np.float32)
    _, H, W = shape_CHW
    _, shares, pixels, boxes = draw(range(20), (0.4, 0.4), size=(H, W))
    places, partners = rng.integers(0, 12, (2, 20))
    mixed = np.full((20, *shape_CHW), np.nan, np.float32)
    mix(images, places, partners, pixels, boxes, mixed)
    for n in range(20):
        own, other = images[places[n]].astype(np.float64), images[partners[n]].astype(np.float64)
        expected = (pixels[n] * own + (1 - pixels[n]) * other).astype(np.float32)
        box = slice(*boxes[n, :2]), slice(*boxes[n, 2:])
        expected[:, *box] = images[partners[n]][:, *box]
        assert np.array_equal(mixed[n], expected)
        if pixels[n] == 1:
            assert 1 - expected[:, *box].size / expected.size == pytest.approx(shares[n])
