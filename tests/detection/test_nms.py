import math

import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.detection import nms
from tests.detection.samples import iou


def suppressed_by_hand(boxes, scores, classes, factor, most, threshold):
    """Of one image: a list of (box, class, score)."""
    left, found = [*zip(boxes.tolist(), scores.tolist(), classes.tolist())], []
    while left and len(found) < most:
        best = max(range(len(left)), key=lambda place: left[place][1])  # the first of the best
        box, score, number = left.pop(best)
        if score <= threshold:
            break
        found.append((box, number, score))
        left = [(b, s * factor(iou(box, b)) if c == number else s, c) for b, s, c in left]
    return found


def made_up(rng, images=3, number=60, classes=3):
    corner = rng.uniform(0, 60, (images, number, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 50, (images, number, 2))], -1).astype("float32")
    scores = rng.uniform(0, 1, (images, number)).round(1).astype("float32")  # with ties
    return boxes, scores, rng.integers(0, classes, (images, number)).astype("int32")


FACTORS = {
    "hard": (nms.hard(0.4), lambda overlap: float(overlap <= 0.4)),
    "linear": (nms.linear(0.4), lambda overlap: 1 - overlap if overlap > 0.4 else 1.0),
    "soft": (nms.soft(0.5), lambda overlap: math.exp(-(overlap**2) / 0.5)),
}


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize(("most", "threshold"), [(100, 0.05), (7, 0.3), (100, 0.999)])
def test_it_is_that_of_brute_force(kind, most, threshold):
    boxes, scores, classes = made_up(np.random.default_rng(0))
    scores[1] *= 0.1  # and one image is done before the others
    ours, by_hand = FACTORS[kind]
    found = {k: v.numpy() for k, v in nms.suppress(boxes, scores, classes, ours, most, threshold).items()}
    assert found["boxes"].shape == (3, most, 4)
    for image in range(3):
        arguments = boxes[image], scores[image], classes[image], by_hand, most, np.float32(threshold)
        expected = suppressed_by_hand(*arguments)
        count = found["count"][image]
        assert count == len(expected)
        if count:
            expected_boxes, expected_classes, expected_scores = zip(*expected)
            np.testing.assert_array_equal(found["classes"][image, :count], expected_classes)
            np.testing.assert_array_equal(found["boxes"][image, :count], np.float32(expected_boxes))
            np.testing.assert_allclose(found["scores"][image, :count], expected_scores, rtol=1e-5)
        for padded in ("boxes", "classes", "scores"):
            assert (found[padded][image, count:] == -1).all()


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_it_is_that_of_tensorflow_for_one_class(kind):
    rng = np.random.default_rng(1)
    boxes, _, _ = made_up(rng, images=1)
    scores = rng.uniform(0, 1, (1, 60)).astype("float32")
    found = nms.suppress(boxes, scores, np.zeros((1, 60), "int32"), FACTORS[kind][0], 20, 0.1)
    chosen, chosen_scores, count = tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes[0],
        scores=scores[0],
        max_output_size=20,
        iou_threshold=0.4 if kind == "hard" else 1.0,
        score_threshold=0.1,
        soft_nms_sigma=0.0 if kind == "hard" else 0.25,  # exp(-overlap ** 2 / (2 * sigma)) there
    )
    assert found["count"][0] == count
    np.testing.assert_array_equal(found["boxes"][0, :count], boxes[0][chosen])
    np.testing.assert_allclose(found["scores"][0, :count], chosen_scores, rtol=1e-5)


def test_classes_leave_each_other_alone():
    boxes = np.float32([[[0, 0, 10, 10]] * 3])
    found = nms.suppress(boxes, np.float32([[0.5, 0.9, 0.8]]), np.int32([[0, 1, 1]]), nms.hard(), 5)
    np.testing.assert_array_equal(found["classes"], [[1, 0, -1, -1, -1]])
    np.testing.assert_allclose(found["scores"], [[0.9, 0.5, -1, -1, -1]])


@pytest.mark.parametrize(("threshold", "count"), [(0.4375, 1), (0.5, 2), (0.5625, 2)])
def test_boxes_that_overlap_exactly_as_much_as_the_threshold_are_kept(threshold, count):
    """The second box is half of the first, the third is the same."""
    boxes = np.float32([[[0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 8]]])
    found = nms.suppress(boxes, np.float32([[0.75, 0.5, 0.25]]), np.int32([[1, 1, 1]]), nms.hard(threshold), 3)
    np.testing.assert_array_equal(found["scores"][0], [0.75, 0.5, -1][:count] + [-1] * (3 - count))
    assert found["count"] == [count]


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 2), (0.125, 2), (0.25, 1), (0.5, 1), (0.75, 0)])
def test_boxes_whose_score_is_exactly_the_threshold_are_left_out(threshold, count):
    """Also where another image of the batch goes on."""
    boxes = np.float32([[[0, 0, 8, 8], [20, 20, 28, 28], [40, 40, 48, 48]]] * 2)
    scores, classes = np.float32([[0.75, 0.25, 0.0], [0.9, 0.9, 0.9]]), np.zeros((2, 3), "int32")
    found = nms.suppress(boxes, scores, classes, nms.hard(), 3, threshold)
    np.testing.assert_array_equal(found["scores"][0], [0.75, 0.25, -1][:count] + [-1] * (3 - count))
    np.testing.assert_array_equal(found["count"], [count, 3])


def test_best_of_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 9, (2, 50, 4)).astype("float32"), rng.uniform(0, 1, (2, 50, 4)).astype("float32")
    found, best, classes = nms.best_of(boxes, scores, 20)
    for image in range(2):
        order = np.argsort(-scores[image].ravel())[:20]
        np.testing.assert_array_equal(best[image], scores[image].ravel()[order])
        np.testing.assert_array_equal(classes[image], order % 4)
        np.testing.assert_array_equal(found[image], boxes[image][order // 4])
    found, best, _ = nms.best_of(boxes[:, :3], scores[:, :3], 20)  # there are fewer
    assert found.shape == (2, 12, 4)
    np.testing.assert_array_equal(best, -np.sort(-scores[:, :3].reshape(2, 12)))


def test_shapes_are_static():
    function = tf.function(lambda b, s, c: nms.suppress(b, s, c, nms.soft(), 9), jit_compile=True)
    boxes, scores, classes = made_up(np.random.default_rng(0), number=20)
    concrete = function.get_concrete_function(
        *(tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in (boxes, scores, classes))
    )
    assert concrete.output_shapes["boxes"].as_list() == [None, 9, 4]
    compiled, eager = function(boxes, scores, classes), nms.suppress(boxes, scores, classes, nms.soft(), 9)
    np.testing.assert_array_equal(compiled["classes"], eager["classes"])
    np.testing.assert_allclose(compiled["scores"], eager["scores"], rtol=1e-5)


def test_many_at_once_are_those_taken_one_by_one():
    boxes, _, _ = made_up(np.random.default_rng(1), number=80)
    is_box = np.arange(80) < np.array([[80], [50], [0]])
    kept = nms.is_kept(boxes, tf.constant(is_box), 0.3).numpy()
    for image in range(3):
        expected = []
        for place in range(80):
            taken = all(iou(boxes[image, other], boxes[image, place]) <= np.float32(0.3) for other in expected)
            expected += [place] * int(is_box[image, place] and taken)
        np.testing.assert_array_equal(np.flatnonzero(kept[image]), expected)
    assert 5 < kept[0].sum() < 70


def test_a_long_chain_of_boxes():
    """Each overlaps the next one: every second one is kept, which takes as many rounds as there are boxes."""
    left = 6.0 * np.arange(50)
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], -1)[None].astype("float32")
    kept = nms.is_kept(boxes, tf.ones((1, 50), bool), 0.2).numpy()
    np.testing.assert_array_equal(kept[0], np.arange(50) % 2 == 0)


def test_best_pairs_of_classes_with_boxes_of_their_own():
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 9, (2, 7, 3, 4)).astype("float32"), rng.uniform(size=(2, 7, 3)).astype("float32")
    found, best, classes = (x.numpy() for x in nms.best_of(boxes, scores, 5))
    for image in range(2):
        order = np.argsort(-scores[image].ravel())[:5]
        np.testing.assert_array_equal(best[image], scores[image].ravel()[order])
        np.testing.assert_array_equal(classes[image], order % 3)
        np.testing.assert_array_equal(found[image], boxes[image].reshape(-1, 4)[order])
