"""What models with other heads on our encoders give."""

import keras
import pytest

import keras_cnv2
from keras_cnv2.export.outputs import with_named_outputs
from keras_cnv2.models.heads import activation_of, classes_of, named_outputs, stem_of, takes_pixels

TINY = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}


def backbone(**arguments):
    return keras_cnv2.ConvNeXtV2Backbone(**TINY, **arguments)


def with_head(*layers, **arguments):
    return keras.Sequential([backbone(**arguments), keras.layers.GlobalAveragePooling2D(), *layers])


def functional(head):
    """A model whose layers are those of the backbone, rather than one that holds it."""
    encoder = backbone()
    return keras.Model(encoder.input, head(keras.layers.GlobalAveragePooling2D()(encoder.output)))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ([keras.layers.Dense(3, activation="softmax")], "probabilities"),
        ([keras.layers.Dense(3, activation="sigmoid")], "probabilities"),
        ([keras.layers.Dense(3)], "logits"),
        ([keras.layers.Dense(3, activation="relu")], "scores"),
        ([keras.layers.Dense(3), keras.layers.Softmax()], "probabilities"),
        ([keras.layers.Dense(3), keras.layers.Activation("softmax", dtype="float32")], "probabilities"),
        ([keras.layers.Dense(3, activation="softmax"), keras.layers.Activation("linear")], "probabilities"),
        ([keras.layers.Dense(4), keras.layers.Reshape((2, 2)), keras.layers.Dropout(0.1)], "logits"),
        ([keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, activation="softmax")])], "probabilities"),
        ([], "scores"),
    ],
)
def test_single_output(head, name):
    assert [*named_outputs(with_head(*head))] == [name]


def test_operations_and_several_outputs():
    dense = keras.layers.Dense
    assert [*named_outputs(functional(lambda x: keras.ops.softmax(dense(3)(x))))] == ["probabilities"]
    assert [*named_outputs(functional(lambda x: keras.ops.exp(dense(3)(x))))] == ["scores"]
    two = functional(lambda x: [dense(1, name="age")(x), dense(2, name="kind")(x)])
    assert [*named_outputs(two)] == ["age", "kind"]
    named = functional(lambda x: {"old": dense(1, name="age")(x), "kind": dense(2)(x)})
    assert {*named_outputs(named)} == {"old", "kind"}
    assert [*named_outputs(functional(lambda x: {"old": dense(1)(x)}))] == ["old"]
    twice = functional(lambda x: [dense(1)(x), keras.ops.split(x, 2, axis=1)])
    with pytest.raises(ValueError, match="a name of its own.*return a dict"):
        named_outputs(twice)


@pytest.mark.parametrize(
    "outputs",
    [
        lambda x: {"decoded": x, "kind": x + 1},  # what a SavedModel says of pictures
        lambda x: {"images": x},
        lambda x: {"": x},
        lambda x: {1: x, 2: x + 1},
        lambda x: {"all": {"old": x}, "kind": x + 1},
        lambda x: {"all": [x, x + 1]},
    ],
)
def test_outputs_that_cannot_be_exported(outputs):
    model = functional(outputs)
    with pytest.raises(ValueError, match="a single tensor with a name of its own, other than 'images' and 'decoded'"):
        with_named_outputs(model)


def test_classes():
    assert classes_of(with_head(keras.layers.Dense(3))) == 3
    assert classes_of(keras.Sequential([backbone(), keras.layers.Conv2D(2, 1)])) is None
    assert classes_of(functional(lambda x: [x, x + 1])) is None
    assert classes_of(backbone()) is None
    assert classes_of(keras_cnv2.ConvNeXtV2(**TINY, include_top=False, pooling="avg")) is None
    assert classes_of(keras.Sequential([keras.layers.Dense(3)])) is None


def test_what_images_are():
    assert takes_pixels(with_head())
    assert not takes_pixels(with_head(include_preprocessing=False))
    assert not takes_pixels(keras.Sequential([with_head(include_preprocessing=False), keras.layers.Dense(2)]))
    assert takes_pixels(functional(lambda x: x))
    encoder = backbone(include_preprocessing=False)
    images = keras.Input((32, 32, 3))
    assert not takes_pixels(keras.Model(images, encoder(images)))
    assert takes_pixels(keras.Model(images, encoder(keras.ops.divide(images, 255))))
    augmented = keras.layers.RandomFlip()(keras.layers.Resizing(64, 64)(images))
    assert not takes_pixels(keras.Model(images, encoder(augmented)))


def test_activation_of_each_output_of_a_nested_model():
    x, images = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(x, [keras.layers.Dense(2, activation=name)(x) for name in ("softmax", "sigmoid", None)])
    assert [activation_of(output) for output in inner(images)] == ["softmax", "sigmoid", "linear"]


def test_stem():
    assert stem_of(with_head(keras.layers.Dense(3), stem_stride=2)).strides == (2, 2)
    images = keras.Input((32, 32, 3))
    two = keras.Model(images, [backbone()(images), backbone()(images)])
    for model, count in (
        (two, 2),
        (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), 0),
        (keras.Sequential([keras.layers.RandomFlip(), backbone()]), 1),  # not built yet
        (keras_cnv2.FCMAE(backbone(), image_size=64, decoder_dim=8), 0),
    ):
        with pytest.raises(ValueError, match=f"must be a ConvNeXtV2.*holds {count} encoders"):
            stem_of(model)
