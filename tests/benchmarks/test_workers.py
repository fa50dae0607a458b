"""Processes of contestants: what they answer, and what becomes of those that cannot."""

import contextlib
import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import contest
from benchmarks.workers import Contestant, Worker, others_share

HERE = "tests.benchmarks.test_workers:"


def count(task, start=0):
    """A contestant that counts its calls, each with 16 MB."""
    calls = iter(range(start, 10**9))

    def run():
        time.sleep(0.01)
        return np.full(2_000_000, next(calls))[:1]

    return run


def missing(task):
    import a_package_that_nobody_has  # noqa: F401


def broken(task):
    raise ValueError("this one is broken")


def test_worker():
    with Worker(Contestant(HERE + "count", {"start": 5}), None, calls=2) as worker:
        assert [list(output) for output in worker.outputs] == [[5], [6]]
        assert set(worker.phases) == {"import", "build", "first"}
        assert worker.phases["first"] >= 0.01
        seconds, peak, others = worker.turn(seconds=0.03)
        assert 0.01 <= seconds < 1
        assert peak is None or peak > 15e6
        assert others is None or 0 <= others <= 1.1  # clocks tick in hundredths
    assert worker.process.returncode == 0


def test_others_share(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert others_share((10, 1), (15, 3), 2) == 3 / 8
    assert others_share((10, 1), (10, 1.01), 2) == 0
    assert others_share(None, None, 2) is None


def test_broken():
    with pytest.raises(RuntimeError, match="this one is broken"):
        Worker(Contestant(HERE + "broken"), None)


def test_missing_is_skipped_and_told(capsys):
    """`start` skips what raises `Missing`, and that alone."""
    contestants = {"rare": Contestant(HERE + "missing", install="get it"), "ours": Contestant(HERE + "count")}
    with contextlib.ExitStack() as stack:
        assert [*contest.start(contestants, None, stack)] == ["ours"]
    assert "skipped: rare: No module named 'a_package_that_nobody_has' (get it)" in capsys.readouterr().err


def test_other_outputs_are_an_error():
    workers = {"ours": SimpleNamespace(outputs=[np.array([5])]), "theirs": SimpleNamespace(outputs=[np.array([0])])}
    contest.check_equal(workers, "ours", ("theirs",), 1e-4)
    with pytest.raises(AssertionError, match="theirs"):
        contest.check_equal(workers, "ours", (), 1e-4)
