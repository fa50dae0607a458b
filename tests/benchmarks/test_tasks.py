"""The work that is compared with: counted by hand and against the published figures."""

import pytest

from benchmarks.tasks import Task, multiply_accumulates, products
from keras_cnv2.sizes import SIZES


def test_products():
    task = Task((1, 0, 0, 1), (2, 3, 4, 5), batch=2, image_size=64, classes=7)
    stem, first = (2 * 256, 48, 2), [(2 * 256, 2, 8), (2 * 256, 8, 2)]
    down = [(2 * 64, 8, 3), (2 * 16, 12, 4), (2 * 4, 16, 5)]
    last = [(2 * 4, 5, 20), (2 * 4, 20, 5)]
    assert products(task) == [stem, *first, *down, *last, (2, 5, 7)]


@pytest.mark.parametrize("size", SIZES)
def test_multiply_accumulates(size):
    assert multiply_accumulates(Task.of(size, 3)) / 3e9 == pytest.approx(SIZES[size].gmacs, rel=0.01)
