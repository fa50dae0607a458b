import pytest

from keras_cnv2.export.kinds.kind import kind_for
from keras_cnv2.export.metadata import exported_metadata, normalization_of
from keras_cnv2.export.options import Options
from tests.export.small import shared_classifier


@pytest.mark.parametrize(("sides", "expected"), [((32, 64), [32, 64]), ((32, 32), 32)])
def test_height_comes_before_width(sides, expected):
    model = shared_classifier(input_shape=(*sides, 3))
    assert exported_metadata(kind_for(model, "onnx")(model, Options()))["image_size"] == expected


def test_grey_images_are_normalised_by_the_average_of_the_channels():
    model = shared_classifier(input_shape=(None, None, 1), include_preprocessing=False)
    (mean,), (std,) = normalization_of(model, 1)
    assert mean == pytest.approx(255 * (0.485 + 0.456 + 0.406) / 3)
    assert std == pytest.approx(255 * (0.229 + 0.224 + 0.225) / 3)
