"""Type hints of the public API, for editors and type checkers."""

import inspect
import re
import subprocess
import sys
from importlib.resources import files

import pytest

import keras_cnv2
from keras_cnv2 import detection, distribute, segmentation


def public_functions():
    """{name: function} of what users call: functions, constructors, public methods and properties."""
    found = {}
    for module in (keras_cnv2, segmentation, detection, distribute):
        for name, value in vars(module).items():
            if inspect.isclass(value):
                found |= {f"{module.__name__}.{name}.{key}": member for key, member in vars(value).items()}
            else:
                found[f"{module.__name__}.{name}"] = value
    # What is behind properties and class methods.
    found = {name: getattr(value, "fget", getattr(value, "__func__", value)) for name, value in found.items()}
    return {name: value for name, value in found.items() if inspect.isfunction(value) and PUBLIC.search(name)}


PUBLIC = re.compile(r"\.([^_.]\w*|__init__|__call__)$")


def test_every_argument_and_result_has_a_hint():
    functions, lacking = public_functions(), []
    for name, function in functions.items():
        signature = inspect.signature(function)
        lacking += [
            f"{name}: {parameter}"
            for parameter in signature.parameters.values()
            if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
        ]
        if signature.return_annotation is signature.empty and not name.endswith(".__init__"):
            lacking.append(f"{name}: its result")
    assert lacking == []
    some = (
        "ConvNeXtV2.__init__",
        "ConvNeXtV2Atto",
        "FCMAE.reconstruct",
        "detection.Detector.class_names",
        "load_image",
    )
    assert {f"keras_cnv2.{name}" for name in some} <= functions.keys()


def test_checkers_are_told():
    assert files("keras_cnv2").joinpath("py.typed").is_file()


RIGHT = """
from pathlib import Path
from typing import assert_type

import numpy as np

import keras_cnv2
from keras_cnv2 import detection, distribute, segmentation

model = keras_cnv2.ConvNeXtV2Atto(weights=Path("weights.pt"), classes=2, class_names=["cat", "dog"], dtype="float16")
model.compile(keras_cnv2.LayerDecayAdamW(keras_cnv2.WarmupCosine(1e-3, 100)), "sparse_categorical_crossentropy")
image = keras_cnv2.load_image("photo.jpg", model.image_size, model.resize)
for name, probability in keras_cnv2.decode_predictions(model.predict(image[None]), top=5)[0]:
    print(name.upper(), f"{probability:.1%}")

assert_type(model, keras_cnv2.ConvNeXtV2)
own = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), [8, 16, 32, 64], input_shape=(None, None, 1), pooling="avg")
fcmae = keras_cnv2.FCMAE("atto", image_size=(96, 64), channels=1)
pictures: np.ndarray = fcmae.reconstruct(np.zeros((1, 96, 64, 1)))
fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone("atto", weights="fcmae"))
backbone: keras_cnv2.ConvNeXtV2Backbone = fcmae.backbone

tensors: dict[str, np.ndarray] = keras_cnv2.state_dict(model, naming="timm")
keras_cnv2.load_checkpoint(model, tensors)
keras_cnv2.save_checkpoint(model, "model.safetensors")
keras_cnv2.export_litert(model, "model.tflite", quantization="int8", representative=[Path("photo.jpg"), image])
version: Path = keras_cnv2.export_serving(keras_cnv2.fold(model), "serving", top=3)

x = keras_cnv2.ConvNeXtV2Block(8, 0.1, name="block")(keras_cnv2.GRN(dtype="float32")(np.zeros((1, 8, 8, 8))))
segmenter = segmentation.Segmenter(segmentation.UPerNet(backbone, classes=2), window=512, stride=(256, 256))
classes = segmenter(image[None], size=image.shape[:2]).mean()
detector = detection.Detector(detection.retinanet(backbone, 2, anchor_sizes=(32, 64, 128, 256, 512)), nms="hard")
keras_cnv2.export_saved_model(detector, Path("exported"), image_size=640)
distribute.enable_multi_worker()
"""

# Each line is to be reported.
WRONG = """
keras_cnv2.GRN(epsilon="a")
keras_cnv2.load_image(3.5)
keras_cnv2.ConvNeXtV2(depths=3, dims=(8, 16, 32, 64))
keras_cnv2.FCMAE("atto", masking_ratio=0.6)
keras_cnv2.ConvNextV2Atto()
keras_cnv2.decode_predictions([[0.5]], top="5")
keras_cnv2.state_dict(keras_cnv2.ConvNeXtV2Atto())["stem"].no_such_attribute
""".strip()


@pytest.mark.slow
def test_mypy(tmp_path):
    pytest.importorskip("mypy")
    # In a folder of its own, it sees the package as users do who installed it.
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(f"import keras_cnv2\n{WRONG}\n")
    options = ["--config-file=", "--strict", "--ignore-missing-imports", "--follow-imports=silent", "--no-pretty"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"], cwd=tmp_path, capture_output=True, text=True
    )
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert not run.stderr
    assert [error for error in errors if not error.startswith("wrong.py:")] == []
    lines = range(2, 2 + len(WRONG.splitlines()))
    assert {int(error.split(":")[1]) for error in errors} == {*lines}, run.stdout
