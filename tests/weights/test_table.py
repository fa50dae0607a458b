from pathlib import Path

from keras_cnv2.checkpoints.registry import OFFICIAL, OURS
from weights.table import README, table


def test_readme_is_current():
    assert README.read_text() == table(), "run python -m weights.table"


def test_readme_has_every_row():
    lines = [line for line in README.read_text().splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(OFFICIAL) + 1 + len(OURS)
    for row, line in zip(OFFICIAL, lines[1:]):
        assert all(text in line for text in (row.size, f"`{row.tag}`", row.repository, row.official_file, row.resize))
    for row, line in zip(OURS, lines[2 + len(OFFICIAL) :]):
        assert all(text in line for text in (row.size, f"`{row.tag}`", f"{row.top1:.1f} %", row.name, row.resize))
    assert Path(README).name == "README.md"
