from __future__ import annotations

import numpy as np
import pytest

from partrain.data.synthetic_digits import BLOCK_SIZE, draw_digits


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def digits():
    return draw_digits(0, 6000, seed=0, split="train")


def test_images_and_labels_have_the_shapes_and_types_of_the_contract(digits):
    images, labels = digits
    assert (images.shape, images.dtype) == ((6000, 1, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((6000,), np.int64)
    assert images.flags.c_contiguous


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, 1),
        (5, 8),
        (7, 7),
        (BLOCK_SIZE - 3, BLOCK_SIZE + 2),
        (BLOCK_SIZE, 2 * BLOCK_SIZE),
        (BLOCK_SIZE - 1, 3 * BLOCK_SIZE + 1),
        (5999, 6000),
    ],
)
def test_an_image_does_not_depend_on_the_range_it_is_drawn_in(digits, first, last):
    images, labels = digits
    assert same(draw_digits(first, last, seed=0, split="train"), (images[first:last], labels[first:last]))


def test_chunks_of_any_size_make_the_same_data_set(digits):
    for size in (701, 1500):
        chunks = [draw_digits(first, min(first + size, 6000), seed=0, split="train") for first in range(0, 6000, size)]
        assert same([np.concatenate(parts) for parts in zip(*chunks, strict=True)], digits)


@pytest.mark.parametrize(("seed", "split"), [(1, "train"), (0, "test")])
def test_another_seed_or_split_gives_other_digits(digits, seed, split):
    images, labels = draw_digits(0, 1000, seed=seed, split=split)
    # Labels agree by chance alone, and images nowhere.
    assert 50 < np.count_nonzero(labels == digits[1][:1000]) < 160
    assert (images != digits[0][:1000]).any(axis=(1, 2, 3)).all()


def test_no_image_comes_twice(digits):
    assert len(np.unique(digits[0].reshape(6000, -1), axis=0)) == 6000


def test_every_digit_comes_about_as_often_as_the_others(digits):
    counts = np.bincount(digits[1], minlength=10)
    # 600 each, give or take five standard deviations of sqrt(6000 · 0.1 · 0.9) = 23.
    assert len(counts) == 10
    assert counts.min() > 484
    assert counts.max() < 716


def test_digits_are_bright_on_dark_and_inside_the_frame(digits):
    images = digits[0][:, 0]
    lit = images > 128
    assert lit.any(axis=(1, 2)).all()
    assert 0.05 < lit.mean() < 0.2
    assert not lit[:, [0, -1], :].any()
    assert not lit[:, :, [0, -1]].any()


def test_the_nearest_class_mean_learns_something_but_far_from_all(digits):
    images, labels = digits[0].reshape(6000, -1).astype(np.float64), digits[1]
    means = np.stack([images[:5000][labels[:5000] == digit].mean(axis=0) for digit in range(10)])
    distances = (means * means).sum(axis=1) - 2 * images[5000:] @ means.T
    assert 0.6 < np.mean(distances.argmin(axis=1) == labels[5000:]) < 0.85
