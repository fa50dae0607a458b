"""Runs the examples of docs/dense.md that begin with a finished run."""

import re
from pathlib import Path

import keras
from PIL import Image

import keras_cnv2

PAGE = (Path(__file__).parents[2] / "docs" / "dense.md").read_text()


def run_example(run, command, pixels, tmp_path, monkeypatch):
    """What the example of a command has given names to.

    Args:
        run: Path of a finished run of the command.
        command: "segment" or "detect".
        pixels: uint8 `(height, width, 3)`, the picture that the example opens.
        tmp_path: Path of an empty folder to run in.
        monkeypatch: That of pytest.
    """
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"runs/{command}/" in text]
    (picture,) = re.findall(r'load_img\("(.*?)"\)', example)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / command).symlink_to(run)
    Image.fromarray(pixels).save(tmp_path / picture)
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "keras_cnv2": keras_cnv2}
    exec(example, names)
    return names
