"""What docs/dense.md says is so."""

import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.commands.main import main as library
from keras_cnv2.models.heads import compute_dtypes
from training.__main__ import main
from training.recipes.detection import DETECTION
from training.recipes.segmentation import SEGMENTATION

PAGE = (Path(__file__).parents[2] / "docs" / "dense.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
ROWS = {"segment": SEGMENTATION, "detect": DETECTION}


@pytest.mark.parametrize(("command", "title"), [("segment", "## Segmentation"), ("detect", "## Detection")])
def test_options_and_recipes(command, title, capsys):
    section = PAGE[PAGE.index(title) :].split("\n## ")[0]
    assert f"keras-cnv2 {command}" in section
    for run, shown in ((main, command), (library, "predict"), (library, "export")):
        with pytest.raises(SystemExit):
            run([shown, "--help"])
    assert {*OPTION.findall(section)} <= {*OPTION.findall(capsys.readouterr().out)}
    assert {*re.findall(r"--recipe (\w+)", section)} <= {*ROWS[command]}


def test_examples_are_python():
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for example in examples:
        compile(example, "dense.md", "exec")


def test_half_precision_gets_a_copy_in_float32():
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "export_onnx" in text]
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1,) * 4, dims=(8,) * 4, pyramid_norms=True, dtype="mixed_float16")
    model = keras_cnv2.detection.mask_rcnn(backbone, 2, width=8, units=8, convs=1)
    exported = []
    package = SimpleNamespace(export_onnx=lambda model, *args, **options: exported.append(model))
    exec(compile(example, "dense.md", "exec"), {"model": model, "keras_cnv2": package})
    assert compute_dtypes(exported[0]) == {"float32"} != compute_dtypes(model)
    for found, expected in zip(exported[0].get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


# What makes the examples small, and what they leave to the reader.
SMALL = {
    '"base", weights="fcmae_ft_in1k"': "depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)",
    '"tiny", weights="fcmae_ft_in1k"': "depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)",
    "UPerNet(backbone, classes=150)": "UPerNet(backbone, classes=150, width=8, auxiliary_width=8)",
    "retinanet(backbone, classes=20)": "retinanet(backbone, classes=20, width=8, convs=1)",
    "mask_rcnn(backbone, classes=20)": "mask_rcnn(backbone, classes=20, width=8, units=8, convs=1, variant=few)",
    "image_size=512": "image_size=64",
}
BOXES = {"boxes": np.array([[[5.0, 5, 40, 40], [-1] * 4]] * 2), "classes": np.array([[3, -1]] * 2)}
GIVEN = {
    "UPerNet": {"labels": np.zeros((2, 64, 64), "int32")},
    "retinanet": BOXES,
    "mask_rcnn": {
        **BOXES,
        "masks": np.ones((2, 2, 64, 64), "uint8"),
        "few": keras_cnv2.detection.Variant(training_proposals=20, proposals=20, box_samples=16),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("head", GIVEN)
def test_models_of_ones_own(head, tmp_path, monkeypatch):
    """Built, compiled, trained and exported as the page does it."""
    monkeypatch.chdir(tmp_path)
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"{head}(backbone" in text]
    for text, small in SMALL.items():
        example = example.replace(text, small)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    names = {"keras": keras, "keras_cnv2": keras_cnv2, "optimizer": "adam", "images": images, **GIVEN[head]}
    exec(compile(example, "dense.md", "exec"), names)
    if head == "mask_rcnn":
        assert names["masks"].shape == (2, 100, 64, 64)
    else:
        assert (tmp_path / "exported" / "saved_model.pb").exists()
