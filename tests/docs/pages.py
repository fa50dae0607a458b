"""The tutorials of docs/, and the parts of them that tests look at."""

import re
import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from training.recipes.images import FINETUNING, PRETRAINING

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
NOTEBOOK = "first_look.ipynb"
PAGES = {name: (DOCS / name).read_text() for name in ("start.md", "finetune.md", "pretrain.md", "weights.md")}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
ROWS = {"pretrain": PRETRAINING, "finetune": FINETUNING}
TINY = "--depths 1,1,1,1 --dims 4,6,8,10"


def blocks(page, language):
    """The blocks of code in one language."""
    return [code for found, code in BLOCK.findall(PAGES[page]) if found == language]


def in_text(page):
    """What stands as code in the text around the blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", PAGES[page]))


def lines_of(page):
    """The command lines of the blocks."""
    return "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()


def commands(page, start):
    """The arguments of the commands that begin so, in the blocks and, where they have arguments, in the text."""
    lines = lines_of(page) + [code for code in in_text(page) if code.startswith(start) and len(code.split()) > 3]
    return [shlex.split(line, comments=True)[len(start.split()) :] for line in lines if line.startswith(start)]


def table(page, start):
    """The cells of the table whose first line starts so."""
    rows = PAGES[page][PAGES[page].index(start) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def save_picture(path, seed, size=(50, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), "uint8")
    Image.fromarray(pixels).save(path)
