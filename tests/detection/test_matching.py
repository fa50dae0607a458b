import keras
import numpy as np
import pytest

from keras_cnv2.detection.boxes import to_deltas
from keras_cnv2.detection.matching import BACKGROUND, IGNORED, AnchorTargets, match
from tests.detection.samples import images, iou, labels

pytest.importorskip("keras_cv")


def matched_by_hand(overlaps, positive, negative, low_quality, own_best=False):
    """The rule, anchor by anchor."""
    matches = []
    for row in overlaps:
        best = max(range(len(row)), key=lambda column: row[column])
        of_boxes = [
            c
            for c in range(len(row))
            if low_quality is not None and row[c] > 0 and row[c] >= low_quality
            if row[c] == max(other[c] for other in overlaps)
        ]
        if own_best and of_boxes:
            matches.append(of_boxes[-1])
        elif row[best] >= positive or of_boxes:
            matches.append(best)
        else:
            matches.append(BACKGROUND if row[best] < negative else IGNORED)
    return matches


@pytest.mark.parametrize("own_best", [True, False])
@pytest.mark.parametrize("low_quality", [0.0, 0.2, None])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5)])
def test_match_is_the_rule(low_quality, thresholds, own_best):
    rng = np.random.default_rng(0)
    overlaps = rng.uniform(0, 0.8, (3, 40, 4)).round(2).astype("float32")  # with ties
    overlaps[1, :, 2:] = -1  # no boxes
    overlaps[2] *= 0.3  # none fits
    low_quality = low_quality and np.float32(low_quality)
    matches = np.array(match(overlaps, *thresholds, low_quality, own_best))
    expected = [matched_by_hand(image, *np.float32(thresholds), low_quality, own_best) for image in overlaps.tolist()]
    np.testing.assert_array_equal(matches, expected)
    assert ({*matches.flat} >= {BACKGROUND, IGNORED}) == (thresholds[0] > thresholds[1])
    assert (matches[2] >= 0).any() == (low_quality is not None)


@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.25), (0.5, 0.4), (0.7, 0.3), (0.5, 0.5)])
def test_overlaps_that_are_exactly_a_threshold(positive, negative):
    """That of an object is enough for one, and that of the background too much for it."""
    thresholds = np.float32([positive, negative])
    just_below = np.nextafter(thresholds, np.float32(0))
    overlaps = np.stack([thresholds, just_below]).reshape(-1, 1)  # positive, negative, and less than each
    at_negative = 0 if positive == negative else IGNORED
    below_positive = BACKGROUND if positive == negative else IGNORED
    expected = [0, at_negative, below_positive, BACKGROUND]
    np.testing.assert_array_equal(match(overlaps, positive, negative, low_quality=None), expected)


def test_a_box_that_no_anchor_touches_has_none():
    overlaps = np.float32([[0.0, 0.6], [0.0, 0.1]])
    np.testing.assert_array_equal(match(overlaps), [1, BACKGROUND])


def few_anchors():
    import keras_cv

    return keras_cv.layers.AnchorGenerator("xyxy", sizes=[32.0], scales=[1.0], aspect_ratios=[1.0], strides=[32])


def test_targets_are_those_of_brute_force():
    # Four anchors, squares of 32 pixels. One box each fits two of them, a little one is in the third.
    generator = few_anchors()
    anchors = np.array(generator(image_shape=(64, 64, 3))[0])
    np.testing.assert_array_equal(anchors, [[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64], [32, 32, 64, 64]])
    given = labels([(2, (0, 0, 30, 32)), (1, (33, 0, 64, 30)), (0, (5, 40, 9, 44))], [])
    deltas, classes = AnchorTargets(generator)(images(), given)
    np.testing.assert_array_equal(classes, [[2, 1, 0, BACKGROUND], [BACKGROUND] * 4])
    np.testing.assert_allclose(deltas[0, :3], to_deltas(anchors[:3], given["boxes"][0]), rtol=1e-5)
    assert np.isfinite(np.array(deltas)).all()
    _, classes = AnchorTargets(generator, low_quality_matches=False)(images(), given)
    np.testing.assert_array_equal(classes[0], [2, 1, BACKGROUND, BACKGROUND])
    assert iou(anchors[2], given["boxes"][0, 2]) == 16 / 1024


def test_padding_takes_no_anchor_from_a_box():
    """Wherever it lies, here where it fits an anchor better."""
    given = labels([(2, (0, 0, 30, 32)), (-1, (0, 0, 32, 32))])
    _, classes = AnchorTargets(few_anchors())(images(1), given)
    np.testing.assert_array_equal(classes, [[2, BACKGROUND, BACKGROUND, BACKGROUND]])


def test_a_batch_without_a_place_for_boxes():
    deltas, classes = AnchorTargets(few_anchors())(images(), labels([], [], most=0))
    np.testing.assert_array_equal(classes, [[BACKGROUND] * 4] * 2)
    assert np.isfinite(np.array(deltas)).all()


def test_targets_are_exact_in_half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        deltas, _ = AnchorTargets(few_anchors())(images(1), labels([(1, (1, 2, 29.3, 31))]))
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(deltas[0, 0], to_deltas(np.float32([0, 0, 32, 32]), np.float32([1, 2, 29.3, 31])))
