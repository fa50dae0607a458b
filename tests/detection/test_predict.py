import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from keras_cnv2.detection import Detector, fit_picture, retinanet
from keras_cnv2.detection.predict import detect

pytest.importorskip("keras_cv")


@pytest.mark.parametrize("include_preprocessing", [True, False])
def test_images_are_normalised_for_models_that_take_them_so(include_preprocessing, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "it.png")
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), include_preprocessing=include_preprocessing
    )
    detector, taken = Detector(retinanet(backbone, 2, width=8, convs=1, image_size=64)), []

    def predict_on_batch(images):
        taken.append(images)
        return {"count": [0], "boxes": np.zeros((1, 1, 4)), "classes": np.zeros((1, 1)), "scores": np.zeros((1, 1))}

    monkeypatch.setattr(detector, "predict_on_batch", predict_on_batch)
    assert [found for _, found in detect(detector, [tmp_path / "it.png"])] == [[]]
    expected, _ = fit_picture(pixels, 64)
    expected = expected if include_preprocessing else keras_cnv2.preprocess_input(expected)
    np.testing.assert_allclose(taken, [[expected]], rtol=1e-5, atol=1e-5)
