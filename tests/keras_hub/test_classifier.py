import json

import keras
import keras_hub
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.keras_hub import ConvNeXtV2ImageClassifierPreprocessor, ConvNeXtV2ImageConverter
from tests.keras_hub.small import ConvNeXtV2ImageClassifier, backbone, classifier, own_model
from tests.outputs import outputs

pytestmark = pytest.mark.backends

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), "uint8")


@pytest.fixture(scope="module")
def own():
    return own_model(class_names=["a", "b", "c"])


@pytest.fixture(scope="module")
def made(own):
    return ConvNeXtV2ImageClassifier.from_model(own)


@pytest.fixture(scope="module")
def preset(made, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("preset"))
    made.save_to_preset(folder)
    return folder


def computed(classifier, x):
    """What a classifier of KerasHub computes: it preprocesses in `predict_on_batch`, not if it is called."""
    return keras.ops.convert_to_numpy(classifier(x))


def normalised(own, images):
    return keras.ops.convert_to_numpy(keras_cnv2.preprocess_input(images, own.mean, own.std))


def test_logits_are_those_of_the_model(own, made):
    images = IMAGES[:, :32, :32]
    np.testing.assert_allclose(computed(made, normalised(own, images)), outputs(own, images), rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_the_model(own, made):
    """In every format: `save_checkpoint` writes the same file of both."""
    ours, theirs = (keras_cnv2.state_dict(model) for model in (own, made))
    assert [*ours] == [*theirs]
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array)


def test_predict_preprocesses(own, made):
    assert made.predict(IMAGES, verbose=0).shape == (2, 3)  # of images of another size
    converter = ConvNeXtV2ImageConverter.from_model(own, image_size=None)
    unsized = ConvNeXtV2ImageClassifier.from_model(own, preprocessor=ConvNeXtV2ImageClassifierPreprocessor(converter))
    images = IMAGES[:, :32, :32]
    np.testing.assert_allclose(unsized.predict(images, verbose=0), outputs(own, images), rtol=1e-5, atol=1e-5)


def test_preset(preset, made):
    """KerasHub's base class finds ours; all weights, the preprocessing and the activation come back."""
    again = keras_hub.models.ImageClassifier.from_preset(preset)
    assert type(again) is ConvNeXtV2ImageClassifier
    assert json.dumps(again.get_config()) == json.dumps(made.get_config())
    for theirs, ours in zip(again.get_weights(), made.get_weights()):
        np.testing.assert_array_equal(theirs, ours)
    assert type(keras_hub.models.Backbone.from_preset(preset, load_weights=False)) is type(made.backbone)


def test_preset_for_other_classes(preset, made):
    """The backbone's weights are the preset's, the head is new."""
    other = ConvNeXtV2ImageClassifier.from_preset(preset, num_classes=5, dtype="mixed_bfloat16")
    assert other.output_shape == (None, 5)
    for theirs, ours in zip(other.backbone.get_weights(), made.backbone.get_weights()):
        np.testing.assert_array_equal(theirs, ours)
    assert other.backbone.compute_dtype == "bfloat16"
    assert other.output_dense.compute_dtype == "float32"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of one backend: what is saved is the same")
def test_preset_of_a_quantized_model(own, tmp_path):
    made = ConvNeXtV2ImageClassifier.from_model(own, compile=False)
    made.quantize("int8")
    made.save_to_preset(str(tmp_path))
    again = ConvNeXtV2ImageClassifier.from_preset(str(tmp_path))
    assert again.output_dense.quantization_mode == "int8"
    assert again.backbone.get_layer("stages_0_0").pwconv1.quantization_mode == "int8"
    x = normalised(own, IMAGES[:, :32, :32])
    np.testing.assert_allclose(computed(again, x), computed(made, x), rtol=1e-5, atol=1e-5)


def test_configuration_has_every_argument():
    given = {"num_classes": 4, "pooling": "max", "dropout": 0.5, "name": "mine", "head_dtype": "bfloat16"}
    made = classifier(**given, activation=keras.activations.sigmoid)
    again = ConvNeXtV2ImageClassifier.from_config(made.get_config())
    config = again.get_config()
    assert config.items() >= {**given, "head_dtype": config["head_dtype"], "activation": "sigmoid"}.items()
    assert again.output_dense.compute_dtype == again.norm.compute_dtype == "bfloat16"
    assert again.preprocessor is None


@pytest.mark.parametrize(("activation", "from_logits"), [(None, True), ("softmax", False)])
def test_default_loss_is_that_of_the_activation(activation, from_logits):
    assert classifier(activation=activation).loss.from_logits is from_logits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"pooling": "sum"}, "pooling"), ({"num_classes": 1, "activation": "softmax"}, "softmax of one class")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        classifier(**arguments)


def test_levels_are_no_features():
    with pytest.raises(ValueError, match="pyramid_norms=False.*Received: "):
        classifier(backbone=backbone(pyramid_norms=True))


@pytest.mark.parametrize("arguments", [{"include_top": False}, None])
def test_other_models(arguments):
    model = backbone() if arguments is None else own_model(**arguments)
    with pytest.raises(ValueError, match="Received: model="):
        ConvNeXtV2ImageClassifier.from_model(model)
