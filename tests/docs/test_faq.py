"""What docs/faq.md says is so."""

import pydoc
import re
from pathlib import Path

import numpy as np

import keras_cnv2

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "faq.md").read_text()


def test_examples(tmp_path, small_sizes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras_cnv2.FCMAE("atto", image_size=(96, 64), channels=1, stem_stride=2).save("fcmae.keras")
    names = {"keras_cnv2": keras_cnv2}
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(example, "faq.md", "exec"), names)
    out = names["fcmae"](np.zeros((1, 96, 64, 1), "float32"))
    assert out["prediction"].shape == (1, 6 * 4, 16 * 16 * 1)


def test_what_it_names_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (DOCS / link).is_file()
    for name in re.findall(r"keras_cnv2(?:\.\w+)+", PAGE):
        assert pydoc.locate(name) is not None, name
