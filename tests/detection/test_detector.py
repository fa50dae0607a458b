import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.detection import Detector
from keras_cnv2.detection.anchors import all_anchors
from tests.detection.samples import images, iou, noisy, numpy_of, tiny

pytest.importorskip("keras_cv")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return noisy(tiny(), spread=3)


def found_by_hand(model, x, *, threshold, candidates, most, factor):
    """The detections of one image: decode all, take the best of each level, suppress class by class."""
    outputs = {name: values[0] for name, values in numpy_of(model(x)).items()}
    anchors = np.array(all_anchors(model.anchor_generator, x.shape))
    scores = 1 / (1 + np.exp(-outputs["classification"].astype("float64")))
    left, start = [], 0
    for side in (8, 4, 2, 1, 1):
        level = range(start, start + 9 * side**2)
        pairs = sorted(((scores[a, c], a, c) for a in level for c in range(3)), key=lambda pair: -pair[0])[:candidates]
        for score, anchor, number in pairs:
            (ax, ay, bx, by), (dy, dx, dh, dw) = anchors[anchor], outputs["box"][anchor] * [0.1, 0.1, 0.2, 0.2]
            y, x_ = (ay + by) / 2 + dy * (by - ay), (ax + bx) / 2 + dx * (bx - ax)
            h, w = (by - ay) * np.exp(min(dh, np.log(62.5))), (bx - ax) * np.exp(min(dw, np.log(62.5)))
            box = np.clip([x_ - w / 2, y - h / 2, x_ + w / 2, y + h / 2], 0, 64)
            left.append((box, number, score if (box[2:] > box[:2]).all() else 0))
        start += 9 * side**2
    found = []
    while left and len(found) < most:
        best = max(range(len(left)), key=lambda place: left[place][2])
        box, number, score = left.pop(best)
        if score <= threshold:
            break
        found.append((box, number, score))
        left = [(b, c, s * factor(iou(box, b)) if c == number else s) for b, c, s in left]
    return found


@pytest.mark.parametrize("nms", ["soft", "hard"])
def test_detections_are_those_of_brute_force(model, nms):
    x = images(2)
    detector = Detector(model, nms, 0.05, iou_threshold=0.4, sigma=0.3, max_detections=12, candidates=15)
    found = numpy_of(detector(x))
    factor = {"soft": lambda overlap: np.exp(-(overlap**2) / 0.3), "hard": lambda overlap: overlap <= 0.4}[nms]
    for image in range(2):
        expected = found_by_hand(model, x[image : image + 1], threshold=0.05, candidates=15, most=12, factor=factor)
        count = len(expected)
        assert found["count"][image] == count > 3
        boxes, classes, scores = zip(*expected)
        np.testing.assert_array_equal(found["classes"][image, :count], classes)
        np.testing.assert_allclose(found["scores"][image, :count], scores, rtol=1e-4)
        np.testing.assert_allclose(found["boxes"][image, :count], boxes, rtol=1e-4, atol=1e-2)


def test_there_may_be_nothing(model):
    found = numpy_of(Detector(model, score_threshold=0.9999)(images(2)))
    np.testing.assert_array_equal(found["count"], [0, 0])
    assert all((found[name] == -1).all() for name in ("boxes", "classes", "scores"))
    assert found["boxes"].shape == (2, 100, 4)
    assert found["classes"].dtype == np.int32


@pytest.mark.slow
def test_predict_gives_arrays_of_all_images(model):
    detector, x = Detector(model, max_detections=7), images(3)
    found, expected = detector.predict(x, batch_size=2, verbose=0), numpy_of(detector(x))
    np.testing.assert_array_equal(found["classes"], expected["classes"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)


def test_an_image_alone_gives_the_same(model):
    detector, x = Detector(model, max_detections=7), images(2)
    np.testing.assert_allclose(detector(x[1:])["scores"][0], detector(x)["scores"][1], rtol=1e-4)


def test_shapes_are_static(model):
    spec = tf.TensorSpec((None, 96, 64, 3))
    shapes = tf.function(Detector(model, max_detections=7)).get_concrete_function(spec).output_shapes
    assert {name: shape.as_list() for name, shape in shapes.items()} == {
        "boxes": [None, 7, 4],
        "classes": [None, 7],
        "scores": [None, 7],
        "count": [None],
    }


def test_it_survives_a_file(model, tmp_path):
    detector = Detector(model, "hard", 0.1, 0.6, 0.7, 5, 20, name="finder")
    detector.save(tmp_path / "detector.keras")
    again = keras.saving.load_model(tmp_path / "detector.keras")
    assert again.get_config() == detector.get_config()
    received, expected = numpy_of(again(images())), numpy_of(detector(images()))
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values)


@pytest.mark.parametrize("name", ["backbone", "KerasCV's"])
def test_other_models_are_named(model, name):
    import keras_cv

    theirs = model.backbone
    if name == "KerasCV's":
        theirs = keras_cv.models.RetinaNet(theirs, num_classes=3, bounding_box_format="xywh")
    with pytest.raises(ValueError, match="retinanet or .*mask_rcnn. Received: model=<"):
        Detector(theirs)


def test_wrong_arguments_are_named(model):
    with pytest.raises(ValueError, match="nms must be one of.*Received: nms='fast'"):
        Detector(model, "fast")
    with pytest.raises(ValueError, match="score_threshold must be a number in \\[0, 1\\)"):
        Detector(model, score_threshold=1)
    with pytest.raises(ValueError, match="sigma must be a positive number"):
        Detector(model, sigma=0)
    with pytest.raises(ValueError, match="max_detections must be a positive int"):
        Detector(model, max_detections=0)
    with pytest.raises(ValueError, match="multiples of 32"):
        Detector(model)(images(1, 48))
    with pytest.raises(ValueError, match="height and width"):
        tf.function(Detector(model)).get_concrete_function(tf.TensorSpec((None, None, None, 3)))
