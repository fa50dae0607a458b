"""Every public function and class has an example in its docstring, and the examples run."""

import ast
import dataclasses
import functools
import importlib
import inspect
import io
import re
import tokenize
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

import keras_cnv2
from keras_cnv2.checkpoints.hub import Download
from keras_cnv2.sizes import SIZES

ROOT = Path(__file__).parents[2]


def public():
    """All public functions and classes, by the shortest of their names. Errors are left out."""
    found = {}
    for path in sorted(ROOT.glob("keras_cnv2/**/__init__.py"), key=lambda path: len(path.parts)):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        module = importlib.import_module(package)
        for name in exported(ast.parse(path.read_text())):
            value = getattr(module, name)
            is_error = inspect.isclass(value) and issubclass(value, Exception)
            if not inspect.ismodule(value) and not is_error and value not in found.values():
                found[f"{package}.{name}".removeprefix("keras_cnv2.")] = value
    return found


def exported(tree):
    """The names that a package imports as themselves, or declares."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.name == alias.asname)
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id


PUBLIC = public()
FENCED = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = {name: FENCED.findall(inspect.getdoc(value)) for name, value in PUBLIC.items()}
SLOW = {"export_litert", "export_onnx", "export_saved_model", "export_serving"}

FEW = "keras_cnv2.detection.Variant(training_proposals=50, proposals=20, box_samples=16)"

# What makes examples small.
SMALL = {
    "FCMAE": {'"atto", image_size=224': '"tiny", image_size=64'},
    "from_pretrained": {"hf://owner/name": "folder"},
    "distribute.enable_multi_worker": {"Atto": "Tiny"},
    "segmentation.UPerNet": {"classes=150)\n": "classes=150, width=8, auxiliary_width=8)\n"},
    "segmentation.deeplab_v3_plus": {"512": "64", "classes=21": "classes=21, width=8, projection_width=8"},
    "segmentation.Segmenter": {"512": "64"},
    "segmentation.predict_classes": {"512": "64"},
    "detection.Variant": {"classes=20": "classes=20, width=8, units=8, convs=1"},
    "detection.mask_rcnn": {"classes=20": f"classes=20, width=8, units=8, convs=1, variant={FEW}", '"atto"': '"tiny"'},
    "keras_hub.ConvNeXtV2Backbone": {"(2, 2, 6, 2)": "(1, 1, 1, 1)"},
    "keras_hub.ConvNeXtV2ImageClassifier": {"Atto": "Tiny"},
    "detection.retinanet": {"classes=20": "classes=20, width=8, convs=1"},
}
DIMS = (4, 6, 8, 10)


def given(name):
    """What examples leave to the reader: the same images for all, with models and labels of their kind."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    names = {"keras": keras, "keras_cnv2": keras_cnv2, "np": np, "tf": tf, "Path": Path, "images": images}
    if name.startswith("segmentation."):
        model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
        labels = np.zeros((2, 64, 64), "int32")
    elif name.startswith("detection."):
        models = {"detection.Detector": small_detector, "detection.paste_masks": small_mask_rcnn}
        model = models.get(name, lambda: None)()
        boxes, classes = np.array([[[5.0, 5, 40, 40]]] * 2, "float32"), np.array([[3]] * 2)
        labels = {"boxes": boxes, "classes": classes}
        names |= {**labels, "masks": np.ones((2, 1, 64, 64), "uint8")}
    else:
        model, labels = small_classifier(), np.array([0, 1])
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    return {
        **names,
        "model": model,
        "better": model,  # of `export_serving`
        "labels": labels,
        "dataset": dataset,
        "optimizer": "adam",
        "image": images[0],
        "paths": ["photo.jpg"] * 2,
        "paths_of_photographs": ["photo.jpg"] * 2,
    }


def small_classifier():
    model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), DIMS, classes=5, image_size=64)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def small_detector():
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=DIMS, pyramid_norms=True)
    return keras_cnv2.detection.retinanet(backbone, classes=5, width=8, convs=1)


def small_mask_rcnn():
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=DIMS, pyramid_norms=True)
    few = keras_cnv2.detection.Variant(candidates=50, proposals=20)
    return keras_cnv2.detection.mask_rcnn(backbone, classes=5, width=8, units=8, convs=1, variant=few)


@pytest.fixture
def small_sizes(monkeypatch):
    """All sizes but the smallest one are small: that one gives the shapes that examples state."""
    for number, name in enumerate(SIZES):
        if name != "atto":
            small = dataclasses.replace(SIZES[name], depths=(1, 1, 1, 1), dims=tuple(dim + 2 * number for dim in DIMS))
            monkeypatch.setitem(SIZES, name, small)
            model = functools.partial(keras_cnv2.ConvNeXtV2, small.depths, small.dims, name=f"convnextv2_{name}")
            monkeypatch.setattr(keras_cnv2, f"ConvNeXtV2{name.title()}", model)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """In place of the download: random weights."""
    folder = tmp_path_factory.mktemp("hub")

    def download(row):
        path = folder / f"{row.size}.safetensors"
        if not path.exists():
            keras_cnv2.save_checkpoint(keras_cnv2.ConvNeXtV2(SIZES[row.size].depths, SIZES[row.size].dims), path)
        return Download(path, "a" * 40, "0" * 64)

    return download


@pytest.fixture
def example(request, hub, small_sizes, monkeypatch, tmp_path):
    """A function that runs the examples of a name, in a folder with a photograph and a checkpoint."""
    monkeypatch.setattr("keras_cnv2.checkpoints.source.download", hub)
    for owner, name in ((trainer, "reduce_per_replica"), (trainer.TensorFlowTrainer, "_maybe_symbolic_build")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # undoes `enable_multi_worker`
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), "uint8")
    keras.utils.save_img("photo.jpg", pixels)

    def run_examples(name):
        if name == "load_checkpoint":
            keras_cnv2.save_checkpoint(keras_cnv2.ConvNeXtV2Atto(classes=10), "finetuned.safetensors")
        if name == "from_pretrained":
            keras_cnv2.save_pretrained(small_classifier(), "folder")
        for text in EXAMPLES[name]:
            for old, new in SMALL.get(name, {}).items():
                assert old in text
                text = text.replace(old, new)
            run(text, given(name))

    return run_examples


def run(text, names):
    """Runs an example. Where a comment begins with a shape or a number, it must be that of the line's value."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token.string[2:] for token in tokens if token.type == tokenize.COMMENT}
    for node in ast.parse(text).body:
        value = None
        if isinstance(node, ast.Expr):
            value = eval(compile(ast.Expression(node.value), "example", "eval"), names)
        else:
            exec(compile(ast.Module([node], []), "example", "exec"), names)
        if isinstance(node, ast.Assign):
            target = node.targets[0].elts[0] if isinstance(node.targets[0], ast.Tuple) else node.targets[0]
            value = names[target.id]
        check(value, comments.get(node.end_lineno, ""))


def check(value, comment):
    if shape := re.match(r"\(([\w, ]+)\)", comment):
        stated = [part for part in re.split(", ?", shape[1]) if part]
        assert len(value.shape) == len(stated), comment
        for side, text in zip(value.shape, stated):
            assert str(side) == text or not (text.isdecimal() or text == "None"), comment
    elif number := re.match(r"[\d.]+(?=,|$)", comment):
        assert float(value) == pytest.approx(float(number[0]), rel=1e-4), comment


def test_every_public_name_has_an_example():
    assert len(PUBLIC) > 40
    assert [name for name, examples in EXAMPLES.items() if not examples] == []
    assert {*SMALL} | SLOW <= {*EXAMPLES}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in SLOW])
def test_examples(name, example, eagerly):
    example(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_slow_examples(name, example):
    example(name)


@pytest.mark.parametrize(
    "wrong",
    ["x = np.zeros((2, 3))  # (2, 4)", "x = np.zeros(2)  # (N, 3)", "np.zeros(2)  # (3,)", "np.sum(1)  # 2, not 1"],
)
def test_comments_are_checked(wrong):
    with pytest.raises(AssertionError):
        run(wrong, {"np": np})
