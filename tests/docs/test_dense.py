"""What docs/dense.md says is so."""

import re
from pathlib import Path

import pytest

from training.__main__ import main
from training.recipes.detection import DETECTION
from training.recipes.segmentation import SEGMENTATION

PAGE = (Path(__file__).parents[2] / "docs" / "dense.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
ROWS = {"segment": SEGMENTATION, "detect": DETECTION}


@pytest.mark.parametrize(("command", "title"), [("segment", "## Segmentation"), ("detect", "## Detection")])
def test_options_and_recipes(command, title, capsys):
    section = PAGE[PAGE.index(title) :].split("\n## ")[0]
    commands = re.findall(rf"keras-cnv2 {command}( [^\n#]*)", section)
    assert len(commands) == 3
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert {*OPTION.findall(section)} <= {*OPTION.findall(capsys.readouterr().out)}
    assert {*re.findall(r"--recipe (\w+)", section)} <= {*ROWS[command]}


def test_examples_are_python():
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        compile(example, "dense.md", "exec")
