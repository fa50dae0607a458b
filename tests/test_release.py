"""What a release agrees on, and docs/release.md."""

import re
from pathlib import Path

import keras_cnv2
from keras_cnv2.checkpoints.registry import CHECKPOINTS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "release.md").read_text()


def test_versions_are_one():
    citation, changes = ((ROOT / name).read_text() for name in ("CITATION.cff", "CHANGELOG.md"))
    cited = re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1]
    newest = re.search(r"^## (\S+) \((?:unreleased|\d{4}-\d\d-\d\d)\)$", changes, re.MULTILINE)[1]
    assert keras_cnv2.__version__ == cited == newest


def test_what_the_page_names_is_there():
    for path in re.findall(r"(?:keras_cnv2|tests|\.ci)/[\w/]+\.?\w*|CITATION\.cff|CHANGELOG\.md", PAGE):
        assert (ROOT / path).is_file(), path
    uploads = re.findall(r"^hf upload (\S+) weights/(\S+) (\S+)$", PAGE, re.MULTILINE)
    rows = {(row.repository, row.official_file, row.file) for row in CHECKPOINTS}
    assert {upload for upload in uploads if upload[2] != "README.md"} <= rows
    assert uploads
