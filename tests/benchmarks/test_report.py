"""CSV files and the tables made from them."""

import pytest

from benchmarks import report
from benchmarks.measure import Turn


@pytest.fixture
def results():
    made = report.Results("Inference", "ours", {"date": "2026-01-31", "machine": "one, with a comma"})
    for number, (ours, theirs) in enumerate([(0.1, 0.2), (0.2, 0.3), (0.1, 0.3)]):
        made.add("tiny, batch 8", 8, Turn("ours", number, ours, 100_000_000))
        made.add("tiny, batch 8", 8, Turn("theirs", number, theirs, None, number / 10))
    return made


def test_table(results):
    assert results.table().splitlines() == [
        "Inference. date 2026-01-31, machine one, with a comma",
        "",
        "| | ms (spread) | images/s | times ours's time (spread) | peak memory, MB |",
        "|---|---|---|---|---|",
        "| **tiny, batch 8** | | | | |",
        "| ours | 100.0 (100.0 to 200.0) | 80.0 | 1 | 100 |",
        "| theirs | 300.0 (200.0 to 300.0) | 26.7 | 2.00 (1.50 to 3.00) |  |",
        "",
        "Other processes had 10% of the CPU in the median turn, 20% at most.",
    ]


def test_csv_holds_all_of_the_table(results, tmp_path):
    results.write(tmp_path / "new" / "a.csv")
    assert report.Results.read(tmp_path / "new" / "a.csv").table() == results.table()


def test_runs_of_the_same_conditions_make_one_table(results, tmp_path, capsys):
    results.write(tmp_path / "a.csv")
    other = report.Results("Inference", "ours", results.conditions)
    other.add("the import", 0, Turn("theirs", 0, 0.5))
    other.write(tmp_path / "b.csv")
    report.main([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    lines = capsys.readouterr().out.splitlines()[:-2]
    assert lines[-2:] == ["| **the import** | | | | |", "| theirs | 500.0 (500.0 to 500.0) |  |  |  |"]

    report.Results("Inference", "ours", {"date": "2026-02-01"}).write(tmp_path / "b.csv")
    with pytest.raises(ValueError, match="other conditions"):
        report.Results.read(tmp_path / "a.csv", tmp_path / "b.csv")


def test_conditions():
    found = report.conditions()
    assert {"date", "commit", "machine", "Python", "keras"} <= {*found}
    assert "core" in found["machine"]
