"""Our ONNX files in transformers.js, on Node."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from tests.export.small import NAMES, classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node and npm"),
]

PACKAGE = "@huggingface/transformers@4.3.2"
SCRIPT = Path(__file__).with_name("transformers_js.mjs")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A folder in which npm has installed the package: that of the variable TRANSFORMERS_JS, else a new one."""
    folder = Path(os.environ.get("TRANSFORMERS_JS") or tmp_path_factory.mktemp("node"))
    if not (folder / "node_modules" / "@huggingface" / "transformers").is_dir():
        environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}
        install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE]
        subprocess.run(install, env=environment, check=True, capture_output=True, timeout=600)
    shutil.copy(SCRIPT, folder)  # modules are looked for from the folder of the script
    return folder


@pytest.mark.parametrize(("resize", "side"), [("crop", 73), ("squash", 64)])
def test_classes(node, resize, side, tmp_path):
    """On pictures that need not be resized: each library rounds in its own way."""
    model = classifier(depths=(1, 1, 1, 1), image_size=64, resize=resize, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.125))
    keras_cnv2.export_onnx(model, tmp_path / "it", layout="transformers")
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "it.png")
    call = ["node", SCRIPT.name, str(tmp_path), "it", str(tmp_path / "it.png")]
    run = subprocess.run(call, cwd=node, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    received = {answer["label"]: answer["score"] for answer in json.loads(run.stdout)}
    image = keras_cnv2.load_image(tmp_path / "it.png", 64, resize)
    expected = dict(zip(NAMES, np.asarray(model(image[None]))[0].tolist()))
    assert received == pytest.approx(expected, abs=1e-4)
