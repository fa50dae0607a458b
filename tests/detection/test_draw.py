import numpy as np
import pytest

from keras_cnv2.detection.draw import COLOURS, draw_detections
from keras_cnv2.detection.predict import Detection

pytest.importorskip("PIL")

BOX = (10.0, 40.0, 150.0, 90.0)


def rgb(colour):
    return [*bytes.fromhex(COLOURS[colour].removeprefix("#"))]


def test_the_highest_score_is_on_top():
    detections = [Detection("b", 0.9, BOX), Detection("a", 0.5, BOX)]
    drawn = draw_detections(np.zeros((100, 200, 3), "uint8"), detections, ["a", "b"])
    assert drawn[60, 10].tolist() == rgb(1)


def test_lines_lie_within_the_box():
    drawn = draw_detections(np.zeros((100, 200, 3), "uint8"), [Detection("a", 0.9, BOX)], ["a", "b"])
    rows, columns = np.nonzero((drawn == rgb(0)).all(-1))
    assert (rows.max(), columns.min(), columns.max()) == (89, 10, 149)


def test_colours_are_repeated():
    names = [f"{number}" for number in range(len(COLOURS) + 2)]
    drawn = draw_detections(np.zeros((100, 200, 3), "uint8"), [Detection(names[-1], 0.9, BOX)], names)
    assert drawn[60, 10].tolist() == rgb(1)


def test_masks_are_translucent():
    pixels = np.full((100, 200, 3), 100, "uint8")
    mask = np.zeros((100, 200), bool)
    mask[50:80, 20:100] = True
    other = np.zeros_like(mask)
    other[70:85, 60:140] = True
    detections = [Detection("a", 0.9, BOX, mask), Detection("b", 0.5, BOX, other), Detection("b", 0.4, BOX)]
    drawn = draw_detections(pixels, detections, ["a", "b"])
    for (row, column), colour in {(60, 30): 0, (75, 70): 0, (82, 70): 1}.items():  # the highest score is on top
        np.testing.assert_allclose(drawn[row, column], 55 + 0.45 * np.array(rgb(colour)), atol=0.5)
    assert (drawn[60, 120] == 100).all()
    assert (pixels == 100).all()
