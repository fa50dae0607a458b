"""Checks what a release uploads, without installing it.

python .ci/check_dist.py DIST CHECKOUT

DIST is a folder with the sdist and the wheel made from it, CHECKOUT one with the wheel made from the checkout.
"""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_cnv2"

# What the package reads at run time, or tools read of it, and no import would miss.
DATA = {"images/imagenet_classes.tsv", "py.typed", "export/serving/files/client.py"}

# Beside the package; Hatchling adds .gitignore, which says what to leave out of the wheel.
SOURCES = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore"}


def only(folder, pattern):
    (path,) = Path(folder).glob(pattern)
    return path


def same(received, expected, what):
    assert received == expected, f"{what}: lacks {expected - received}, has {received - expected} as well"


dist, checkout = sys.argv[1:]
files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
package = {path.relative_to(ROOT).as_posix() for path in files}
assert {f"keras_cnv2/{name}" for name in DATA} <= package

wheel, theirs = (
    {entry.filename: entry.CRC for entry in zipfile.ZipFile(path).infolist()}
    for path in (only(dist, "*.whl"), only(checkout, "*.whl"))
)
same({name for name in wheel if ".dist-info/" not in name}, package, "the wheel")
same({*wheel.items()}, {*theirs.items()}, "the wheel from the sdist, against that from the checkout")

sdist = only(dist, "*.tar.gz")
with tarfile.open(sdist) as archive:
    names = {member.name.removeprefix(f"{sdist.name.removesuffix('.tar.gz')}/") for member in archive}
same(names, package | SOURCES, "the sdist")
print(f"{sdist.name} and its wheel have {len(package)} files of the package, and no others of the checkout")
