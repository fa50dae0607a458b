import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.detection.loss import FocalLoss
from keras_cnv2.detection.matching import IGNORED
from tests.detection.samples import TWO, images, labels, noisy, numpy_of, tiny

pytest.importorskip("keras_cv")


def focal(logit, is_there, alpha=0.25, gamma=2):
    """Equation 5 of the paper, of one class of one anchor."""
    p = 1 / (1 + math.exp(-logit))
    p_t, alpha_t = (p, alpha) if is_there else (1 - p, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)


def smooth_l1(difference):
    return abs(difference) - 0.5 if abs(difference) >= 1 else difference**2 / 2


def losses_by_hand(model, x, y, weights=None):
    """Both losses, anchor by anchor, over the number of anchors that have a box."""
    outputs = numpy_of(model(x))
    deltas, classes = numpy_of(model.label_encoder(x, y))
    weights = [1] * len(x) if weights is None else weights
    box = classification = boxes = 0
    for image, weight in enumerate(weights):
        for anchor, number in enumerate(classes[image]):
            if number == IGNORED:
                continue
            for index, logit in enumerate(outputs["classification"][image, anchor]):
                classification += weight * focal(float(logit), index == number)
            if number >= 0:
                boxes += weight
                pairs = zip(outputs["box"][image, anchor], deltas[image, anchor])
                box += weight * sum(smooth_l1(float(o) - float(d)) for o, d in pairs) / 4
    return box / max(boxes, 1), classification / max(boxes, 1)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = noisy(tiny())
    model.compile("sgd", run_eagerly=True)
    return model


def test_focal_loss_is_the_paper_s():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(0, 3, (5, 4)).astype("float32"), rng.integers(0, 2, (5, 4))
    expected = [[focal(logit, there, 0.3, 1.5) for logit, there in zip(*row)] for row in zip(logits, truth)]
    np.testing.assert_allclose(FocalLoss(0.3, 1.5, reduction="none")(truth, logits), np.sum(expected, -1), rtol=1e-5)
    np.testing.assert_allclose(FocalLoss(0.3, 1.5)(truth, logits), np.sum(expected), rtol=1e-5)


def test_focal_loss_is_kerascv_s_where_that_cuts_nothing():
    import keras_cv

    rng = np.random.default_rng(0)
    logits, truth = rng.normal(0, 3, (5, 4)).astype("float32"), rng.integers(0, 2, (5, 4))
    theirs = keras_cv.losses.FocalLoss(from_logits=True, reduction="sum")
    np.testing.assert_allclose(FocalLoss()(truth, logits), theirs(truth, logits), rtol=1e-4)


def test_focal_loss_pulls_however_wrong_the_model_is():
    logits = tf.constant([[-60.0, 60.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = FocalLoss()(tf.constant([[1.0, 0.0]]), logits)
    np.testing.assert_allclose(loss, 0.25 * 60 + 0.75 * 60)
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-0.25, 0.75]])


@pytest.mark.parametrize(
    ("y", "weights"),
    [
        (TWO, None),
        (TWO, [1.0, 0.0]),  # what fills up a last batch
        (labels([], [(2, (4, 4, 40, 50))]), None),  # nothing in one image
        (labels([], []), None),  # nothing in any
    ],
)
def test_the_model_s_loss_is_that_of_brute_force(model, y, weights):
    x = images()
    model.reset_metrics()  # which Keras 3.10 leaves to us
    logs = model.test_on_batch(x, y, sample_weight=weights and np.float32(weights), return_dict=True)
    box, classification = losses_by_hand(model, x, y, weights)
    np.testing.assert_allclose(logs["box_loss"], box, rtol=1e-4)
    np.testing.assert_allclose(logs["classification_loss"], classification, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], box + classification, rtol=1e-4)
    assert {*logs} == {"loss", "box_loss", "classification_loss"}


@pytest.mark.parametrize("y", [labels([], []), labels([], [(2, (4, 4, 40, 50))])])
def test_gradients_are_finite_without_boxes(model, y):
    x = tf.constant(images())
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    missing = {v.path for v, g in zip(model.trainable_variables, gradients) if g is None}
    assert missing == set()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert any((np.array(gradient) != 0).any() for gradient in gradients)


def test_the_loss_starts_at_the_prior():
    # At the start every class of every anchor has a probability of 0.01, within what the features make of it.
    model = tiny()
    scores = keras.ops.sigmoid(model(images())["classification"])
    np.testing.assert_allclose(scores, 0.01, rtol=0.1)
