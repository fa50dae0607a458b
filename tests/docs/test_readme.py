"""What README.md shows is so."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_cnv2
from keras_cnv2.checkpoints.hub import Download
from keras_cnv2.commands.main import new_parser
from keras_cnv2.sizes import SIZES

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_commands():
    for command in (
        'pip install -e ".[train]" && python -m training quickstart',
        'pip install -e ".[test]" && pytest',
    ):
        assert f"```bash\n{command}\n```" in README


def test_table_of_sizes():
    for name, size in SIZES.items():
        depths, dims = (" ".join(map(str, row)) for row in (size.depths, size.dims))
        row = f"| `ConvNeXtV2{name.capitalize()}` | {depths} | {dims} | {size.parameters:,} | {size.gmacs:g} G |"
        assert row in README


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders of the examples, with a few small pictures."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("photos/cat", "photos/dog", "images"):
        for i in range(2):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            pixels = tf.io.encode_png(rng.integers(0, 256, (40, 50, 3), "uint8"))
            tf.io.write_file(str(tmp_path / name / f"{i}.png"), pixels)
    return tmp_path


def test_published_weights(folders, small_sizes, monkeypatch, tmp_path):
    """The first example, with random weights in place of the download."""
    keras_cnv2.save_checkpoint(keras_cnv2.ConvNeXtV2Tiny(), tmp_path / "tiny.safetensors", "timm")

    def download(row):
        return Download(tmp_path / f"{row.size}.safetensors", "a" * 40, "0" * 64)

    monkeypatch.setattr("keras_cnv2.checkpoints.source.download", download)
    (tmp_path / "images" / "0.png").rename(tmp_path / "photo.jpg")
    names = {}
    *lines, last = BLOCKS[0].splitlines()
    exec("\n".join([*lines, f"predictions = {last}"]), names)
    assert names["model"].image_size == 384
    assert len(names["predictions"]) == 5
    assert {name for name, _ in names["predictions"]} < {*names["model"].class_names}


@pytest.mark.parametrize("block", [block for block in BLOCKS if "fit(" in block])
def test_examples(block, folders, small_sizes):
    assert sum(bool(line) for line in block.splitlines()) <= 10
    small = re.sub(r"epochs=\d+", "epochs=1", block).replace("224", "64")
    small = re.sub(r"(\.compile\(.*)\)\n", r"\1, run_eagerly=True)\n", small)  # a step or two: not worth compiling
    assert "run_eagerly" in small
    names = {}
    exec(compile(small, "README.md", "exec"), names)
    if "fcmae" in names:
        classifier = names["classifier"]
        assert classifier.layers[0] is names["fcmae"].backbone
        keras_cnv2.export_saved_model(classifier, "exported", image_size=64, class_names=["cat", "dog"])
        served = tf.saved_model.load("exported").signatures["serve_jpeg"]
        picture = (folders / "photos" / "cat" / "0.png").read_bytes()
        probabilities = served(encoded=tf.constant([picture]))["probabilities"]
        np.testing.assert_allclose(probabilities, classifier(keras_cnv2.load_image(picture, 64)[None]), atol=1e-5)
    else:
        again = keras_cnv2.ConvNeXtV2Atto(weights="classifier.keras", classes=2)
        assert names["model"].class_names == ("cat", "dog")
        np.testing.assert_array_equal(again.get_weights()[0], names["model"].get_weights()[0])


def test_optimizer():
    (block,) = [block for block in BLOCKS if "LayerDecayAdamW" in block]
    names = {"photos": range(20), "keras_cnv2": keras_cnv2}
    exec(block, names)
    assert names["optimizer"].gradient_accumulation_steps == 4
    assert float(names["optimizer"].learning_rate) == 0


def test_exports():
    """The arguments exist; that the functions work is for their own tests."""
    (block,) = [block for block in BLOCKS if "export_" in block]
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    for call in calls:
        arguments = {keyword.arg: keyword.value for keyword in call.keywords}
        inspect.signature(getattr(keras_cnv2, call.func.attr)).bind(*call.args, **arguments)
    assert calls
    commands = re.findall(r"^keras-cnv2 (export .*)$", README, re.MULTILINE)
    for command in commands:
        new_parser().parse_args(shlex.split(command, comments=True))
    assert commands
