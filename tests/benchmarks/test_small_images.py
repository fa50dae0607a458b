"""Shares, from times that are given."""

from benchmarks.floor import WIDTH
from benchmarks.measure import Turn
from benchmarks.report import Results
from benchmarks.small_images import PIPELINE, PRODUCT, REFERENCE, shares


def test_shares():
    results = Results("Small images", REFERENCE, {"date": "today"})
    # The machine is half as fast in the second round.
    for number, slow in enumerate((1, 2)):
        for name, seconds in {REFERENCE: 2.0, PRODUCT: 0.5, PIPELINE: 0.1}.items():
            results.add("a case", 4, Turn(name, number, slow * seconds))
    work = {"a case": 2 * WIDTH**3}  # a step has the operations of six products, and takes the time of four
    row = shares(results, work).splitlines()[-1]
    rate = 12 * WIDTH**3 / 1e9
    assert row == f"| a case | {(rate / 2 + rate / 4) / 2:.0f} | 1.50 | 5.0% |"
