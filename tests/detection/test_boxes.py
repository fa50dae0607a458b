import numpy as np
import pytest

from keras_cnv2.detection.boxes import clip, from_deltas, overlap, to_deltas
from tests.detection.samples import iou


def random_boxes(rng, *shape, size=100):
    corner = rng.uniform(-20, size, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, size, (*shape, 2))], axis=-1).astype("float32")


def test_overlap_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, 2, 7), random_boxes(rng, 2, 5)
    expected = [[[iou(b, o) for o in others[n]] for b in boxes[n]] for n in range(2)]
    np.testing.assert_allclose(overlap(boxes, others), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(overlap(boxes[0], others[0]), expected[0], rtol=1e-5, atol=1e-6)


def test_boxes_without_area_overlap_nothing():
    points = np.float32([[3, 3, 3, 3], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(overlap(points, points), np.zeros((2, 2)))


def test_deltas_of_one_box():
    # From a 10 x 20 anchor around (5, 10) to a 20 x 10 box around (15, 15).
    deltas = np.array(to_deltas(np.float32([0, 0, 10, 20]), np.float32([5, 10, 25, 20])))
    expected = [5 / 20 / 0.1, 10 / 10 / 0.1, np.log(1 / 2) / 0.2, np.log(2) / 0.2]
    np.testing.assert_allclose(deltas, expected, rtol=1e-6)


def test_from_deltas_is_the_inverse():
    rng = np.random.default_rng(0)
    anchors, boxes = random_boxes(rng, 50), random_boxes(rng, 2, 50)
    np.testing.assert_allclose(from_deltas(anchors, to_deltas(anchors, boxes)), boxes, rtol=1e-4, atol=1e-3)


def test_kerascv_decodes_our_deltas():
    keras_cv = pytest.importorskip("keras_cv")
    from tests.detection.samples import images, tiny

    model = tiny()
    anchors = np.concatenate([np.array(level) for level in model.anchor_generator(image_shape=(64, 64, 3)).values()])
    rng = np.random.default_rng(0)
    deltas = rng.normal(0, 1, (1, *anchors.shape)).astype("float32")
    seen = []

    class Decoder(keras_cv.layers.NonMaxSuppression):
        def call(self, box_prediction, class_prediction, images=None, image_shape=None):
            seen.append(np.array(box_prediction))
            return {"boxes": box_prediction}

    model.prediction_decoder = Decoder("xyxy", from_logits=True)
    model.decode_predictions({"box": deltas, "classification": np.zeros((1, len(anchors), 3), "float32")}, images(1))
    np.testing.assert_allclose(from_deltas(anchors, deltas), seen[0], rtol=1e-4, atol=1e-3)


def test_wild_deltas_give_finite_boxes():
    boxes = np.array(from_deltas(np.float32([0, 0, 16, 16]), np.float32([0, 0, 1e4, 1e4])))
    np.testing.assert_allclose(boxes, [-492, -492, 508, 508])


def test_clip():
    boxes = clip(np.float32([[-5, 3, 70, 90], [10, -9, 20, 5]]), 40, 60)
    np.testing.assert_array_equal(boxes, [[0, 3, 60, 40], [10, 0, 20, 5]])
