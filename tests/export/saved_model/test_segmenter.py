import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_cnv2
from keras_cnv2.export.kinds import segmenter
from keras_cnv2.segmentation import deeplab_v3_plus
from tests.export.small import NAMES, encoded, pixels, png_that_claims, sideways
from tests.segmentation.small import backbone, images, upernet, with_values

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return upernet(class_names=NAMES)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "segmenter"
    keras_cnv2.export_saved_model(model, path, max_pixels=20_000)
    return path


@pytest.fixture(scope="module")
def served(path):
    return tf.saved_model.load(str(path)).signatures


def assert_answer(answer, logits):
    probabilities = np.asarray(tf.nn.softmax(logits))
    assert {*answer} == {"class_map", "scores"}
    assert answer["class_map"].dtype == tf.int32
    np.testing.assert_allclose(answer["scores"], probabilities.max(-1), atol=1e-4)
    first, second = np.sort(probabilities, axis=-1)[..., :-3:-1].transpose(3, 0, 1, 2)
    clear = first - second > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(answer["class_map"])[clear], probabilities.argmax(-1)[clear])


def test_images(served, model):
    assert {*served} == {"serving_default", "serve_jpeg"}
    assert_answer(served["serving_default"](images=tf.constant(images())), model(images()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_its_own_size(served, model, kind):
    """A PNG is to be turned by a quarter."""
    picture = encoded(kind, array=pixels(70, 99), exif=sideways() if kind == "PNG" else b"")
    is_jpeg = kind == "JPEG"
    exact = tf.io.decode_jpeg(picture, 3, dct_method="INTEGER_ACCURATE") if is_jpeg else np.rot90(pixels(70, 99), -1)
    assert_answer(served["serve_jpeg"](encoded=tf.constant([picture])), model(np.asarray(exact, "float32")[None]))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"no picture", "Send a JPEG, PNG or WebP"),
        (png_that_claims(2**31 - 1, 2**31 - 1), "at most 20000 pixels"),
        (encoded(array=pixels(16, 64)), "at least 32 pixels"),
    ],
)
def test_impossible_pictures(served, picture, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served["serve_jpeg"](encoded=tf.constant([picture]))


def test_labels_are_an_asset(path):
    assert (path / "assets" / "labels.txt").read_text("utf-8").splitlines() == [*NAMES]


def test_fixed_size_and_uint8(tmp_path):
    model = upernet()
    keras_cnv2.export_saved_model(model, tmp_path / "it", image_size=64, input_dtype="uint8")
    loaded = tf.saved_model.load(str(tmp_path / "it")).signatures
    assert {*loaded} == {"serving_default"}
    batch = images(2, 64, 64).astype("uint8")
    assert_answer(loaded["serving_default"](images=tf.constant(batch)), model(batch))
    assert (tmp_path / "it" / "assets" / "labels.txt").read_text("utf-8").splitlines() == [
        f"class {i}" for i in range(5)
    ]


def test_one_class(tmp_path):
    model = upernet(classes=1, class_names=["road"])
    keras_cnv2.export_saved_model(model, tmp_path / "it")
    serve = tf.saved_model.load(str(tmp_path / "it")).signatures["serving_default"]
    logits = model(images())
    answer = serve(images=tf.constant(images()))
    assert_answer(answer, tf.concat([tf.zeros_like(logits), logits], -1))
    assert {*np.unique(answer["class_map"])} == {0, 1}
    assert (tmp_path / "it" / "assets" / "labels.txt").read_text("utf-8").split() == ["background", "road"]


def test_deeplab(tmp_path):
    pytest.importorskip("keras_cv")
    body = backbone(depths=(1, 1, 1, 1), input_shape=(64, 96, 3))
    model = with_values(deeplab_v3_plus(body, 3, width=8, projection_width=4, class_names=["a", "b", "c"]))
    keras_cnv2.export_saved_model(model, tmp_path / "it")
    serve = tf.saved_model.load(str(tmp_path / "it")).signatures["serving_default"]
    assert_answer(serve(images=tf.constant(images(2, 64, 96))), model(images(2, 64, 96)))
    assert (tmp_path / "it" / "assets" / "labels.txt").read_text("utf-8").split() == ["a", "b", "c"]


def test_what_differs_is_not_left(model, monkeypatch, tmp_path):
    def wrongly_folded(encoder):
        folded = keras_cnv2.fold(encoder)
        folded.get_layer("classifier").bias.assign_add([0, 0, 0, 0, 1e-1])
        return folded

    monkeypatch.setattr(segmenter, "fold", wrongly_folded)
    with pytest.raises(keras_cnv2.ExportError, match="scores: the export's values are not the model's"):
        keras_cnv2.export_saved_model(model, tmp_path / "it")
    assert [*tmp_path.iterdir()] == []


def test_impossible_arguments(model, tmp_path):
    for arguments in ({"resize": "crop"}, {"max_pixels": 0}, {"image_size": 16}, {"input_dtype": "int8"}):
        with pytest.raises(ValueError, match="Received: "):
            keras_cnv2.export_saved_model(model, tmp_path / "it", **arguments)
    inputs = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="The model must be a ConvNeXtV2"):
        keras_cnv2.export_saved_model(keras.Model(inputs, keras.layers.ReLU()(inputs)), tmp_path / "it")
    assert [*tmp_path.iterdir()] == []
