"""The work that is compared with: counted by hand and against the published figures."""

import dataclasses

import pytest

from benchmarks.tasks import Task, multiply_accumulates, products
from keras_cnv2.sizes import SIZES


def test_products():
    task = Task((1, 0, 0, 1), (2, 3, 4, 5), batch=2, image_size=64, classes=7)
    stem, first = (2 * 256, 48, 2), [(2 * 256, 2, 8), (2 * 256, 8, 2)]
    down = [(2 * 64, 8, 3), (2 * 16, 12, 4), (2 * 4, 16, 5)]
    last = [(2 * 4, 5, 20), (2 * 4, 20, 5)]
    assert products(task) == [stem, *first, *down, *last, (2, 5, 7)]


def test_stem_stride():
    """Of an image of a quarter of the sides there remain as many positions; only the stem reads less."""
    large, small = Task.of("atto", 2, 128), dataclasses.replace(Task.of("atto", 2, 32), stem_stride=1)
    assert products(small)[0] == (2 * 32 * 32, 3, 40)
    assert products(small)[1:] == products(large)[1:]
    assert multiply_accumulates(large) - multiply_accumulates(small) == 2 * 32 * 32 * 45 * 40


@pytest.mark.parametrize("size", SIZES)
def test_multiply_accumulates(size):
    assert multiply_accumulates(Task.of(size, 3)) / 3e9 == pytest.approx(SIZES[size].gmacs, rel=0.01)
