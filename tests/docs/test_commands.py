"""Every command in the blocks of README.md and docs/ is one: it has the options that it is given."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from keras_cnv2.commands.main import new_parser
from keras_cnv2_command import TRAINING
from training.__main__ import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTS = ("python -m training ", "keras-cnv2 ")


def commands_of(page):
    """The commands of these two programs in the page's blocks, as lists of arguments with the program in front."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").replace(" && ", "\n").splitlines()
    found = [(start, shlex.split(line, comments=True)) for line in lines for start in STARTS if line.startswith(start)]
    return [(start, words) for start, words in found if "--help" not in words]


FOUND = [(page.name, start, words) for page in PAGES for start, words in commands_of(page)]


@pytest.fixture
def parsed(monkeypatch):
    """What the commands are told, in place of running them."""
    seen = []
    for name in TRAINING:
        monkeypatch.setattr(importlib.import_module(f"training.commands.{name}"), "main", seen.append)
    return seen


@pytest.mark.parametrize(("page", "start", "words"), FOUND, ids=[f"{page}-{' '.join(w)}" for page, _, w in FOUND])
def test_parses(page, start, words, parsed):
    arguments = words[len(start.split()) :]
    if arguments[0] not in TRAINING:
        new_parser().parse_args(arguments)
    else:
        main(arguments)
        (args,) = parsed
        assert args.command == arguments[0]


def test_all_pages_are_looked_at():
    assert {page for page, *_ in FOUND} >= {"README.md", "dense.md", "distribute.md", "finetune.md", "weights.md"}
