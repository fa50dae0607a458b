"""Runs the examples of docs/dense.md that begin with a finished run, in a process that imports keras_cnv2 alone."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dense.md").read_text()

BEFORE = f"""
import sys

sys.path.insert(0, {str(ROOT)!r})
import keras
import keras_cnv2
"""
AFTER = """
import pickle

assert "training" not in sys.modules
with open("found.pickle", "wb") as file:
    pickle.dump([eval(expression) for expression in sys.argv[1:]], file)
"""


def run_example(run, command, pixels, tmp_path, *expressions):
    """What comes of some expressions after the example of a command.

    Args:
        run: Path of a finished run of the command.
        command: "segment" or "detect".
        pixels: uint8 `(height, width, 3)`, the picture that the example opens.
        tmp_path: Path of an empty folder to run in.
        *expressions: Strings, Python with the names of the example.
    """
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"runs/{command}/" in text]
    (picture,) = re.findall(r'load_img\("(.*?)"\)', example)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / command).symlink_to(run)
    Image.fromarray(pixels).save(tmp_path / picture)
    script = [sys.executable, "-c", BEFORE + example + AFTER, *expressions]
    process = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    return pickle.loads((tmp_path / "found.pickle").read_bytes())
