"""What `import keras_cnv2` alone is enough for, and what it does without; each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_cnv2.detection import Detector
from tests.detection.samples import tiny


def run(code, backend="tensorflow"):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_what_is_loaded_imports_kerascv(tmp_path):
    pytest.importorskip("keras_cv")
    model = tiny(class_names=["cat", "dog", "cow"])
    model.save(tmp_path / "model.keras")
    Detector(model, max_detections=7).save(tmp_path / "detector.keras")
    code = f"""
import sys, keras, keras_cnv2
assert not {{"keras_cv", "pycocotools"}} & {{*sys.modules}}
detector = keras.saving.load_model({str(tmp_path / "detector.keras")!r})
model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
print(type(model).__name__, model.classes, type(detector).__name__, detector.max_detections, *detector.class_names)
"""
    assert run(code)[-7:] == ["RetinaNet", "3", "Detector", "7", "cat", "dog", "cow"]


@pytest.mark.slow
def test_other_backends_do_without_tensorflow():
    pytest.importorskip("jax")
    code = """
import sys, keras_cnv2
from keras_cnv2 import detection, distribute, segmentation
from keras_cnv2.optimizers import loss_scale
print(*{"tensorflow", "keras_cv", "pycocotools"} & {*sys.modules})
"""
    assert run(code, "jax") == []
