"""Slopes and the picture, from times that grow as they were made to."""

from benchmarks import growth
from benchmarks.measure import Turn
from benchmarks.report import Results


def made(exponent):
    results, work = Results("Growth", "ours", {}), {"1": 1e9, "2": 2e9, "4": 4e9}
    for case, amount in work.items():
        for number in range(2):
            results.add(case, 1, Turn("ours", number, 3e-12 * amount**exponent, int(amount / 1e3)))
    return growth.curves(results, work)


def test_slope():
    lines = made(1.25)
    assert growth.slopes("batch", lines).endswith("| ours | 1.25 | 1.00 |")


def test_picture(tmp_path):
    growth.draw("batch", made(1), ["1", "2", "4"], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
