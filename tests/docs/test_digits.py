"""What docs/digits.md says is so."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.boxes import digits, pages
from training.data.images import arrays

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "digits.md").read_text()


def test_picture(tmp_path, monkeypatch):
    """The example draws it. Fonts may differ between machines, what is above the boxes does not."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "digits.md", "exec"), {})
    with Image.open("digits.png") as drawn, Image.open(DOCS / "digits.png") as expected:
        assert drawn.size == expected.size == (900, 600)
        upper = [np.float32(image.convert("RGB"))[:295] for image in (drawn, expected)]
    assert np.abs(upper[0] - upper[1]).mean() < 2


def test_numbers():
    train, validation = digits.PAGES
    assert f"There are {train:,} pages for training and {validation} for validation" in PAGE
    scans = arrays.digits(8)
    assert f"the {scans.size:,} digits" in PAGE
    assert f"the other {scans.validation_size}" in PAGE
    (fewest, most), (least, greatest) = pages.COUNTS, pages.SIDES
    assert f"{fewest} to {most} digits" in PAGE
    assert f"a square of {least} to {greatest} pixels" in PAGE
    assert f"A page has {pages.PAGE} x {pages.PAGE} pixels" in PAGE
    assert f"an IoU of more than {pages.MAX_IOU}" in PAGE
    assert f"at least {pages.CONTRAST} of 255 levels" in PAGE
    assert pages.MIN_VISIBLE == 0.5  # "at least half of it"
