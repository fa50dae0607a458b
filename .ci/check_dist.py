"""Checks what a release uploads, without installing it.

python .ci/check_dist.py DIST CHECKOUT

DIST is a folder with the sdist and the wheel made from it, CHECKOUT one with the wheel made from the checkout.
"""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Folders and files of the checkout -> their names in the wheel.
PACKAGES = {"keras_cnv2": "keras_cnv2", "training": "keras_cnv2_training"}
COMMAND = "keras_cnv2_command.py"

# What is read at run time, or by tools, and no import would miss.
DATA = {
    "keras_cnv2/images/imagenet_classes.tsv",
    "keras_cnv2/py.typed",
    "keras_cnv2/export/serving/files/client.py",
    "training/reports/style.css",
}

# Beside the packages; Hatchling adds .gitignore, which says what to leave out of the wheel.
SOURCES = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore"}


def only(folder, pattern):
    (path,) = Path(folder).glob(pattern)
    return path


def same(received, expected, what):
    assert received == expected, f"{what}: lacks {expected - received}, has {received - expected} as well"


dist, checkout = sys.argv[1:]
found = {path for folder in PACKAGES for path in (ROOT / folder).rglob("*")}
files = {path for path in found if path.is_file() and "__pycache__" not in path.parts}
package = {path.relative_to(ROOT).as_posix() for path in files} | {COMMAND}
assert package >= DATA

wheel, theirs = (
    {entry.filename: entry.CRC for entry in zipfile.ZipFile(path).infolist()}
    for path in (only(dist, "*.whl"), only(checkout, "*.whl"))
)
folders = {name: name.partition("/")[0] for name in package}
renamed = {name.replace(folder, PACKAGES.get(folder, folder), 1) for name, folder in folders.items()}
same({name for name in wheel if ".dist-info/" not in name}, renamed, "the wheel")
same({*wheel.items()}, {*theirs.items()}, "the wheel from the sdist, against that from the checkout")

sdist = only(dist, "*.tar.gz")
with tarfile.open(sdist) as archive:
    names = {member.name.removeprefix(f"{sdist.name.removesuffix('.tar.gz')}/") for member in archive}
same(names, package | SOURCES, "the sdist")
print(f"{sdist.name} and its wheel have {len(package)} files of the package, and no others of the checkout")
