import re

import keras
import numpy as np
import pytest

from keras_cnv2.segmentation import ConfusionMatrix, check_labels
from tests.segmentation.small import labels
from tests.segmentation.test_loss import WEIGHTS_OF_ANYTHING_ELSE

CLASSES = 6  # of which labels name five


def predicted(seed=1):
    """Mostly right, and never the last but one class."""
    y, rng = labels(), np.random.default_rng(seed)
    drawn = rng.choice([0, 1, 2, 3, 5], y.shape)
    return np.where((rng.uniform(size=y.shape) < 0.7) & (y < 4), y, drawn)


def brute_force(y, p):
    matrix = np.zeros((CLASSES, CLASSES), "int64")
    for a, b in zip(y.ravel(), p.ravel()):
        if a != 255:
            matrix[a, b] += 1
    return matrix


@pytest.mark.backends
@pytest.mark.parametrize("of", ["classes", "logits"])
def test_brute_force(of):
    y, p = labels(), predicted()
    given = p if of == "classes" else np.eye(CLASSES, dtype="float32")[p] * 3 - 1
    metric = ConfusionMatrix(CLASSES)
    for image in range(2):  # counts add up
        metric.update_state(y[image : image + 1], given[image : image + 1])
    expected = brute_force(y, p)
    np.testing.assert_array_equal(metric.matrix(), expected)

    scores = metric.scores()
    for number, iou in enumerate(scores["iou"]):
        both = (y != 255) & (y == number) & (p == number)
        either = (y != 255) & ((y == number) | (p == number))
        assert iou == pytest.approx(both.sum() / either.sum())
    known = y != 255
    assert scores["mean_iou"] == pytest.approx(np.mean(scores["iou"]))
    assert scores["pixel_accuracy"] == pytest.approx((p == y)[known].mean())
    assert scores["mean_accuracy"] == pytest.approx(np.mean([(p == y)[y == number].mean() for number in range(5)]))
    assert float(metric.result()) == pytest.approx(scores["mean_iou"], rel=1e-6)
    metric.reset_state()
    assert metric.matrix().sum() == 0


@pytest.mark.backends
@pytest.mark.parametrize("of", ["classes", "logits"])
def test_one_class_is_counted_as_two(of):
    y, p = np.array([[[0, 0, 1, 1, 1, 255]]]), np.array([[[0, 1, 0, 1, 1, 1]]])
    metric = ConfusionMatrix(1)
    metric.update_state(y, p if of == "classes" else 6.0 * p[..., None] - 1)
    np.testing.assert_array_equal(metric.matrix(), [[1, 1], [1, 2]])
    assert ConfusionMatrix.from_config(metric.get_config()).classes == 1
    check_labels(y, 1)
    with pytest.raises(ValueError, match=r"from 0 to 1.*Received: 1 others, such as \[2\]"):
        check_labels(y + 1, 1, ignore_label=256)


@pytest.mark.backends
def test_classes_that_never_appear():
    metric = ConfusionMatrix(4)
    assert np.isnan(float(metric.result()))
    assert metric.scores() == {"mean_iou": None, "pixel_accuracy": None, "mean_accuracy": None, "iou": [None] * 4}
    metric.update_state([[[0, 0, 1]]], [[[0, 3, 1]]])
    assert metric.scores() == {
        "mean_iou": 0.5,
        "pixel_accuracy": 2 / 3,
        "mean_accuracy": 0.75,
        "iou": [0.5, 1, None, 0],
    }
    assert float(metric.result()) == 0.5


@pytest.mark.backends
def test_counts_that_float32_cannot_hold():
    metric = ConfusionMatrix(2)
    before = 2**40 + 1
    metric.low.assign([before % 2**20, 0, 2**20 - 1, 0, 0])
    metric.high.assign([before // 2**20, 0, 0, 0, 0])
    metric.update_state([[[0, 0, 1]]], [[[0, 1, 0]]])
    assert metric.matrix().tolist() == [[before + 1, 1], [2**20, 0]]


@pytest.mark.backends
def test_weights_of_images():
    y, p = labels(), predicted()
    metric = ConfusionMatrix(CLASSES)
    metric.update_state(y, p, sample_weight=np.float32([0, 0.5]))
    np.testing.assert_array_equal(metric.matrix(), brute_force(y[1:], p[1:]))


@pytest.mark.backends
def test_weights_as_a_column_and_one_for_all():
    y, p = labels(), predicted()
    metric = ConfusionMatrix(CLASSES)
    metric.update_state(y, p, sample_weight=[[0], [0.5]])
    metric.update_state(y, p, sample_weight=0.5)
    np.testing.assert_array_equal(metric.matrix(), brute_force(y[1:], p[1:]) + brute_force(y, p))


@pytest.mark.backends
@pytest.mark.parametrize("shape", WEIGHTS_OF_ANYTHING_ELSE)
def test_weights_of_anything_else(shape):
    y = np.zeros((4, 4, 4), "int32")
    with pytest.raises(ValueError, match=rf"one number per image.*N = 4;.*Received: .*{re.escape(str(shape))}"):
        ConfusionMatrix(CLASSES).update_state(y, y, sample_weight=np.ones(shape, "float32"))


def test_weights_of_a_rank_that_a_graph_does_not_know():
    tf = pytest.importorskip("tensorflow")
    y, p, metric = labels(), predicted(), ConfusionMatrix(CLASSES)
    update = tf.function(lambda weights: metric.update_state(y, p, weights), input_signature=[tf.TensorSpec(None)])
    update([0.0, 0.5])
    np.testing.assert_array_equal(metric.matrix(), brute_force(y[1:], p[1:]))


@pytest.mark.backends
@pytest.mark.parametrize("wrong", [-1, 2, 254])
@pytest.mark.parametrize("side", ["labels", "predictions"])
def test_what_is_no_class_is_loud(wrong, side):
    metric = ConfusionMatrix(2)
    metric.update_state(*([[[wrong, 0]]], [[[1, 0]]])[:: 1 if side == "labels" else -1])
    assert np.isnan(float(metric.result()))
    with pytest.raises(ValueError, match="Received: 1 pixels"):
        metric.scores()


@pytest.mark.backends
@pytest.mark.parametrize("shape", [(2, 65, 76, 1), (65, 76), (2, 65, 75)])
def test_labels_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"shape \(N, height, width\) of the predictions, \(2, 65, 76\).*Received: "):
        ConfusionMatrix(CLASSES).update_state(np.zeros(shape, "int32"), predicted())


def test_config_holds_every_argument():
    given = {"classes": 3, "ignore_label": None, "name": "mine", "dtype": "float32"}
    metric = keras.metrics.deserialize(keras.metrics.serialize(ConfusionMatrix(**given)))
    assert metric.get_config() == given
    metric.update_state([[[0, 1]]], [[[0, 1]]])
    assert metric.matrix().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(("value", "ignore"), [(5, 255), (-1, 255), (255, None), (255, 0)])
def test_check_labels(value, ignore):
    y = np.minimum(labels(), 4)
    check_labels(y, 5, ignore)
    check_labels(labels(), 5)
    y[1, 2, 3] = value
    with pytest.raises(ValueError, match=rf"Received: 1 others, such as \[{value}\]"):
        check_labels(y, 5, ignore)
