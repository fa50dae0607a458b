import numpy as np
import pytest

from keras_cnv2.detection.draw import COLOURS, draw_boxes
from keras_cnv2.detection.predict import Detection

pytest.importorskip("PIL")

BOX = (10.0, 40.0, 150.0, 90.0)


def rgb(colour):
    return [*bytes.fromhex(COLOURS[colour].removeprefix("#"))]


def test_the_highest_score_is_on_top():
    detections = [Detection("b", 0.9, BOX), Detection("a", 0.5, BOX)]
    drawn = draw_boxes(np.zeros((100, 200, 3), "uint8"), detections, ["a", "b"])
    assert drawn[60, 10].tolist() == rgb(1)


def test_lines_lie_within_the_box():
    drawn = draw_boxes(np.zeros((100, 200, 3), "uint8"), [Detection("a", 0.9, BOX)], ["a", "b"])
    rows, columns = np.nonzero((drawn == rgb(0)).all(-1))
    assert (rows.max(), columns.min(), columns.max()) == (89, 10, 149)


def test_colours_are_repeated():
    names = [f"{number}" for number in range(len(COLOURS) + 2)]
    drawn = draw_boxes(np.zeros((100, 200, 3), "uint8"), [Detection(names[-1], 0.9, BOX)], names)
    assert drawn[60, 10].tolist() == rgb(1)
