"""The golden model in every precision."""

import os
from pathlib import Path

import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.export.litert.export import export_litert
from tests import golden
from tests.export.litert.litert_files import run
from tests.golden import rule

# A folder of photographs, in folders or not, which are not part of the project.
PHOTOS = os.environ.get("KERAS_CNV2_PHOTOS")


@pytest.mark.slow
def test_reference(tmp_path):
    """Logits of the official code."""
    reference = golden.load("dense_atto")
    model = keras_cnv2.ConvNeXtV2Atto(include_preprocessing=False, classifier_activation=None)
    golden.set_weights(model, reference["seed"])
    export_litert(model, tmp_path / "it.tflite")
    logits = run(tmp_path / "it.tflite", rule.image(int(reference["seed"]), 2, 224, 224))["logits"]
    np.testing.assert_allclose(logits, reference["224/logits"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def photos():
    """Paths to calibrate with, and images of other photographs."""
    if not PHOTOS:
        pytest.skip("KERAS_CNV2_PHOTOS names no folder of photographs")
    files = sorted(path for path in Path(PHOTOS).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:500]
    return files[0:200:2], np.stack([keras_cnv2.load_image(path) for path in files[1::2]])


@pytest.fixture
def atto():
    model = keras_cnv2.ConvNeXtV2Atto(input_shape=(224, 224, 3))
    golden.set_weights(model, golden.load("dense_atto")["seed"])
    return model


def clear_answers(model, images):
    """Probabilities, the best class, and for which images the two best differ by more than 10 %."""
    probabilities = model.predict(images, verbose=0)
    second, best = np.sort(probabilities)[:, -2:].T
    clear = best > 1.1 * second
    assert clear.sum() >= 100
    return probabilities, probabilities.argmax(-1), clear


@pytest.mark.slow
def test_photographs(tmp_path, photos, atto):
    paths, images = photos
    expected, best, clear = clear_answers(atto, images)
    sizes = {}
    for quantization, same in {None: 1, "float16": 0.995, "dynamic": 0.98, "int8": 0.98}.items():
        path = tmp_path / f"{quantization}.tflite"
        export_litert(atto, path, quantization, paths if quantization == "int8" else None)
        sizes[quantization] = path.stat().st_size
        received = run(path, images)["probabilities"]
        assert (received.argmax(-1) == best)[clear].mean() >= same
        if quantization is None:
            np.testing.assert_allclose(received, expected, atol=1e-6)
    assert sizes["int8"] <= 0.3 * sizes[None]


@pytest.mark.slow
def test_outliers(tmp_path, photos, atto):
    """Where GRN makes a few channels twenty times as large, which would take all others' places in int8."""
    rng = np.random.default_rng(5)
    for block in (layer for layer in atto.layers if hasattr(layer, "grn")):
        factors = np.ones(4 * block.dim)
        factors[rng.choice(factors.size, max(2, factors.size // 100), replace=False)] = 20
        block.grn.gamma.assign(block.grn.gamma * factors)
    paths, images = photos
    _, best, clear = clear_answers(atto, images)
    export_litert(atto, tmp_path / "it.tflite", "int8", paths)
    received = run(tmp_path / "it.tflite", images)["probabilities"]
    assert (received.argmax(-1) == best)[clear].mean() >= 0.97
