from types import SimpleNamespace

import pytest

from training.evaluation import speed
from training.evaluation.speed import Speed


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, in place of the time."""
    clock = [10.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    return clock


def measured(clock, seconds, images, batch_size):
    """The speed of steps that take so many seconds, and half a second after the last one."""
    with Speed(images, visible=False) as measured:
        for step in seconds:
            clock[0] += step
            measured.step(batch_size)
        clock[0] += 0.5
    return measured.rate(images, batch_size)


@pytest.mark.parametrize(
    ("seconds", "images", "rate"),
    [([60.0, 1.0, 0.5], 10, 3.0), ([60.0, 1.0], 5, 0.7), ([60.0], 4, None), ([60.0], 3, None), ([], 0, None)],
)
def test_first_step_does_not_count(clock, seconds, images, rate):
    assert measured(clock, seconds, images, 4) == rate


def test_bar_ends_at_the_number_of_images(monkeypatch):
    """Also where workers have unequal shares: here 3 and 2."""
    steps = []
    bar = SimpleNamespace(update=steps.append, close=lambda: steps.append("closed"))
    monkeypatch.setattr(speed, "progress_bar", lambda total, **_: bar)
    with Speed(5) as measured:
        for _ in range(3):
            measured.step(2)
    assert steps == [2, 2, 1, "closed"]
