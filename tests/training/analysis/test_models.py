import numpy as np
import pytest

import keras_cnv2
from tests.training.analysis.small import SMALL, images
from training.analysis.models import explain


@pytest.mark.parametrize(("classes", "name"), [(1000, "tench"), (3, "class 0")])
def test_grad_cam_names_the_classes_of_a_model_without_names(classes, name):
    """A thousand are ImageNet's, as in `predict`."""
    model = keras_cnv2.ConvNeXtV2(**SMALL, classes=classes)
    model.get_layer("head").bias.assign(np.eye(classes)[0] * 20)
    _, told = explain(model, images(1))
    assert told == [f"{name} 100%"]
