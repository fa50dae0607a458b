import sys

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.detection import Detector, check_labels, retinanet
from keras_cnv2.detection.heads import PredictionHead, Pyramid
from keras_cnv2.optimizers.layer_decay import layers_above
from tests.detection.samples import CLASSES, TWO, images, labels, noisy, numpy_of, tiny

keras_cv = pytest.importorskip("keras_cv")


def test_it_is_kerascv_s():
    model = tiny(class_names=["cat", "dog", "cow"])
    assert isinstance(model, keras_cv.models.RetinaNet)
    assert model.class_names == ("cat", "dog", "cow")
    assert model.metrics == []  # KerasCV's label encoder would have one
    assert model.bounding_box_format == "xyxy"


def test_pyramid_is_kerascv_s():
    theirs, ours = keras_cv.models.retinanet.FeaturePyramid(), Pyramid(256)
    rng = np.random.default_rng(0)
    features = {
        level: rng.normal(0, 1, (1, side, side, 6)).astype("float32")
        for level, side in (("P3", 12), ("P4", 6), ("P5", 3))
    }
    shapes = {level: x.shape for level, x in features.items()}
    ours.build(shapes)
    theirs.build(shapes)
    ours.set_weights(theirs.get_weights())
    for received, expected in zip(ours(features), theirs(features)):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    assert [*map(tuple, ours.compute_output_shape(shapes))] == [tuple(x.shape) for x in ours(features)]


def test_an_image_of_weight_0_is_as_if_it_were_not_there():
    """Neither its boxes nor its background count, nor the number of its boxes as a divisor."""
    model = noisy(tiny())
    model.compile("sgd", run_eagerly=True)
    loss = model.test_on_batch(images(), TWO, sample_weight=np.array([1.0, 0.0]))
    first = {name: values[:1] for name, values in TWO.items()}
    model.reset_metrics()
    np.testing.assert_allclose(loss, model.test_on_batch(images()[:1], first), rtol=1e-5)
    model.reset_metrics()
    # `fit` and `evaluate` give the weights to each label.
    evaluated = model.evaluate(images(), TWO, batch_size=2, sample_weight=np.array([1.0, 0.0]), verbose=0)
    np.testing.assert_allclose(evaluated, loss, rtol=1e-5)


def test_head_is_that_of_the_paper():
    head = PredictionHead(9 * 80, prior=0.01)
    head.build((None, None, None, 256))
    assert [tuple(v.shape) for v in head.variables if v.path.endswith("kernel")] == [(3, 3, 256, 256)] * 4 + [
        (3, 3, 256, 720)
    ]
    np.testing.assert_allclose(np.std(head.convs[0].kernel), 0.01, rtol=0.01)
    np.testing.assert_allclose(keras.ops.sigmoid(head.prediction.bias), 0.01, rtol=1e-5)


@pytest.mark.parametrize("layer", [Pyramid(5, name="p"), PredictionHead(7, 4, 2, 0.01, name="h")])
def test_layers_have_configurations(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


def test_it_survives_a_file(tmp_path):
    model = noisy(tiny(class_names=["cat", "dog", "cow"], anchor_sizes=(16, 32, 64, 128, 256.5)))
    model.compile(keras_cnv2.LayerDecayAdamW(1e-3), run_eagerly=True)
    model.train_on_batch(images(), TWO)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert again.get_config() == model.get_config()
    for received, expected in zip(
        numpy_of(again.label_encoder(images(), TWO)), numpy_of(model.label_encoder(images(), TWO))
    ):
        np.testing.assert_array_equal(received, expected)
    received, expected = numpy_of(again(images())), numpy_of(model(images()))
    for output in ("box", "classification"):
        np.testing.assert_array_equal(received[output], expected[output])
    again.run_eagerly = True  # which Keras does not keep
    for trained in (model, again):
        trained.train_on_batch(images(), TWO)
    for received, expected in zip(again.variables, model.variables):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6, err_msg=expected.path)
    assert again.optimizer.iterations == 2


def test_what_is_frozen_stays_so():
    model = tiny()
    model.backbone.trainable = False
    again = type(model).from_config(model.get_config())
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables] != []
    detector = Detector(model)
    detector.trainable = False
    again = Detector.from_config(detector.get_config())
    assert not again.trainable
    assert again.trainable_variables == []


def test_all_that_is_trained_has_gradients():
    # KerasCV's RetinaNet would train the backbone's norm of P2, which it does not read.
    names = {variable.path for variable in tiny().trainable_variables}
    assert "pyramid_norm_1/gamma" in names
    assert "pyramid_norm_0/gamma" not in names


def test_layers_decay_from_the_heads_down():
    model = tiny()
    paths = [variable.path for variable in model.trainable_variables]
    above = dict(zip(paths, layers_above(paths, "single")))
    assert above["stem_conv/kernel"] == above["stages_0_0/dwconv/kernel"] == 4
    assert above["downsample_3_conv/kernel"] == above["stages_3_0/pwconv2/kernel"] == 1
    assert {above[path] for path in paths if path.startswith(("pyramid", "box_head", "classification_head"))} == {0}


def test_half_precision_reaches_no_output():
    model = noisy(tiny(dtype="mixed_bfloat16"))
    outputs = model(images())
    assert {str(keras.backend.standardize_dtype(x.dtype)) for x in outputs.values()} == {"float32"}
    assert model.feature_pyramid.compute_dtype == "bfloat16"
    deltas = numpy_of(outputs["box"])
    assert (deltas != np.array(keras.ops.cast(keras.ops.cast(deltas, "bfloat16"), "float32"))).mean() > 0.9
    assert keras.config.dtype_policy().name == "float32"
    model.compile(keras_cnv2.LayerDecayAdamW(1e-3), run_eagerly=True)
    assert np.isfinite(model.train_on_batch(images(), TWO, return_dict=True)["loss"])


@pytest.mark.slow
def test_half_precision_as_the_global_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        outputs = model(images())
        found = Detector(model, score_threshold=0.0)(images())
    finally:
        keras.config.set_dtype_policy("float32")
    assert {str(keras.backend.standardize_dtype(x.dtype)) for x in outputs.values()} == {"float32"}
    assert keras.backend.standardize_dtype(found["boxes"].dtype) == "float32"


def test_numbers_that_are_no_class_are_loud():
    model = tiny()
    wrong = labels([(1, (5, 5, 40, 40))], [(0, (10, 20, 30, 60)), (CLASSES, (0, 0, 9, 9))])
    check_labels(TWO, CLASSES)
    with pytest.raises(ValueError, match=r"from 0 to 2.*Received: 1 others, such as \[3\.0\]"):
        check_labels(wrong, CLASSES)
    nan = {**TWO, "boxes": np.where(TWO["boxes"] == TWO["boxes"].max(), np.nan, TWO["boxes"])}
    with pytest.raises(ValueError, match=r"Boxes must be finite. Received: 1 that are not, such as \[.*nan"):
        check_labels(nan, CLASSES)
    model.compile("sgd", run_eagerly=True)
    right = model.test_on_batch(images(), TWO, return_dict=True)
    loss = model.test_on_batch(images(), wrong, return_dict=True)
    assert np.isfinite(right["loss"])
    assert np.isnan(loss["loss"])
    assert np.isfinite(loss["box_loss"])
    assert np.isnan(model.test_on_batch(images(), nan, return_dict=True)["loss"])


def test_wrong_arguments_are_named():
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    with pytest.raises(ValueError, match="class_names must be a list of 3 strings"):
        retinanet(backbone, 3, class_names=["cat"])
    with pytest.raises(ValueError, match="classes must be a positive int"):
        retinanet(backbone, 0)
    with pytest.raises(ValueError, match="anchor_sizes must be 5 positive numbers"):
        retinanet(backbone, 3, anchor_sizes=(32, 64, 128))
    with pytest.raises(ValueError, match="width must be a positive int"):
        retinanet(backbone, 3, width=0)
    for image_size in (0, 100, 64.0, True):
        with pytest.raises(ValueError, match="image_size must be a multiple of 32"):
            retinanet(backbone, 3, image_size=image_size)
    with pytest.raises(ValueError, match="backbone's height and width .*image_size=96, .*64, 64"):
        tiny(input_shape=(64, 64, 3), image_size=96)
    small = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), stem_stride=2)
    with pytest.raises(ValueError, match="levels P3 to P5.*Received: backbone with \\['P1', 'P2', 'P3', 'P4'\\]"):
        retinanet(small, 3)
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny(input_shape=(224, 225, 3))
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny()(images(1, 40))


def test_missing_kerascv_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r'pip install "keras_cnv2\[keras-cv\]"'):
        retinanet(None, 3)


@pytest.mark.slow
def test_it_learns_two_images():
    keras.utils.set_random_seed(0)
    x = np.full((2, 64, 64, 3), 100, "float32")
    boxes = [[(0, (8, 8, 40, 40))], [(1, (24, 16, 60, 56))]]
    for image, found in enumerate(boxes):
        ((number, (left, top, right, bottom)),) = found
        x[image, top:bottom, left:right] = (250, 20, 20) if number == 0 else (20, 20, 250)
    model = tiny(2, width=16)
    model.compile(keras_cnv2.LayerDecayAdamW(5e-3))
    model.optimizer.build(model.trainable_variables)
    history = model.fit(x, labels(*boxes), epochs=150, verbose=0).history["loss"]
    assert history[-1] < history[0] / 10
    found = Detector(model, score_threshold=0.3, nms="hard").predict(x, verbose=0)
    np.testing.assert_array_equal(found["classes"][:, 0], [0, 1])
    np.testing.assert_allclose(found["boxes"][:, 0], [[8, 8, 40, 40], [24, 16, 60, 56]], atol=4)
