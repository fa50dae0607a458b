import contextlib
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.training.data.boxes.small import NAMES as COLOURS
from tests.training.data.boxes.small import extent, recipe, write_voc
from training.data.boxes.folders import VocFolder
from training.errors import DataError
from training.evaluation.detection import Found, Truth, coco_scores, evaluate

NAMES = ("a", "b", "c")


def truth(boxes, classes=None, **columns):
    boxes = np.reshape(np.float32(boxes), (-1, 4))
    return Truth(boxes, np.zeros(len(boxes), int) if classes is None else np.array(classes), **columns)


def found(boxes, classes=None, scores=None):
    boxes, classes = truth(boxes, classes)[:2]
    return Found(boxes, classes, np.linspace(0.9, 0.1, len(boxes)) if scores is None else np.float32(scores))


def random_case(pictures=12):
    """Truths, and detections that are some of them shifted, mistaken for others, and made up."""
    rng = np.random.default_rng(0)

    def boxes(count):
        corners = rng.uniform(0, 200, (count, 2))
        return np.concatenate([corners, corners + 4 ** rng.uniform(1, 3.7, (count, 2))], 1).astype("float32")

    truths, detections = [], []
    for _ in range(pictures):
        count = rng.integers(0, 7)
        own, classes = boxes(count), rng.integers(0, 2, count)  # none of the third class
        areas = (own[:, 2:] - own[:, :2]).prod(1) * rng.uniform(0.4, 1, count)
        truths.append(Truth(own, classes, rng.uniform(size=count) < 0.2, areas.astype("float32")))
        sides = np.tile(own[:, 2:] - own[:, :2], 2)
        shifted = own + (sides * rng.uniform(-0.15, 0.15, own.shape)).astype("float32")
        more = rng.integers(0, 4)
        mistaken = np.where(rng.uniform(size=count) < 0.2, 2 - classes, classes)
        columns = np.concatenate([shifted, boxes(more)]), np.concatenate([mistaken, rng.integers(0, 3, more)])
        detections.append(Found(*columns, rng.uniform(size=count + more).astype("float32")))
    return truths, detections


class TestScores:
    def test_against_pycocotools(self, tmp_path):
        """Through its own reader of results, with other ids."""
        truths, detections = random_case()
        ids = {"images": [{"id": 7 + n} for n in range(12)], "categories": [{"id": 20 + n} for n in range(3)]}

        def row(picture, box, number):
            left, top, right, bottom = box.tolist()
            return {
                "image_id": 7 + picture,
                "category_id": 20 + int(number),
                "bbox": [left, top, right - left, bottom - top],
            }

        rows = [
            {**row(picture, *columns[:2]), "iscrowd": int(columns[2]), "area": float(columns[3])}
            for picture, objects in enumerate(truths)
            for columns in zip(*objects)
        ]
        results = [
            {**row(picture, box, number), "score": float(score)}
            for picture, objects in enumerate(detections)
            for box, number, score in zip(*objects)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {**ids, "annotations": [{"id": 50 + n, **row} for n, row in enumerate(rows)]}
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            one = COCOeval(coco, coco.loadRes(results), "bbox")
            one.params.catIds = [21]
            one.evaluate()
            one.accumulate()
            one.summarize()
        scores = coco_scores(truths, detections, NAMES)
        for name, place in {"AP": 0, "AP50": 1, "AP75": 2, "APS": 3, "APM": 4, "APL": 5, "AR100": 8}.items():
            assert scores[name] == pytest.approx(evaluation.stats[place], abs=1e-9)
            assert 0.05 < scores[name] < 0.95
        assert scores["classes"]["b"] == pytest.approx(one.stats[0], abs=1e-9)
        assert scores["classes"]["c"] is None
        assert scores["AP"] == pytest.approx((scores["classes"]["a"] + scores["classes"]["b"]) / 2)

    def test_all_is_found(self):
        truths = [truth([[0, 0, 20, 20], [30, 30, 90, 90]], [0, 1]), truth([[5, 5, 200, 150]], [2])]
        scores = coco_scores(truths, [found(*objects[:2]) for objects in truths], NAMES)
        assert scores == {
            **dict.fromkeys(("AP", "AP50", "AP75", "APS", "APM", "APL", "AR100"), pytest.approx(1.0)),
            "classes": dict.fromkeys(NAMES, pytest.approx(1.0)),
        }

    @pytest.mark.parametrize(("shift", "overlaps"), [(1, 10), (10, 7), (20, 4), (30, 1), (34, 0)])
    def test_a_box_that_is_shifted(self, shift, overlaps):
        """A box of 100 shifted by s overlaps by (100 - s) / (100 + s): 0.98, 0.82, 0.67, 0.54 and 0.49."""
        scores = coco_scores([truth([[0, 0, 100, 50]])], [found([[shift, 0, 100 + shift, 50]])], ["a"])
        assert scores["AP"] == pytest.approx(overlaps / 10)
        assert scores["AP50"] == pytest.approx(float(overlaps > 0))
        assert scores["AP75"] == pytest.approx(float(shift <= 10))

    def test_a_wrong_one_that_is_surer(self):
        """Precision is a half at every recall."""
        made_up = found([[200, 200, 300, 300], [0, 0, 100, 100]], scores=[0.9, 0.5])
        assert coco_scores([truth([[0, 0, 100, 100]])], [made_up], ["a"])["AP"] == pytest.approx(0.5)

    def test_half_of_all(self):
        """Of 101 recalls, 0 to 0.5 are reached."""
        truths = [truth([[0, 0, 100, 100]]), truth([[0, 0, 100, 100]])]
        scores = coco_scores(truths, [found([[0, 0, 100, 100]]), found([])], ["a"])
        assert scores["AP"] == pytest.approx(51 / 101)
        assert scores["AR100"] == pytest.approx(0.5)

    def test_crowd_is_ignored(self):
        """Neither missed nor wrong to find; the surest detection is of the crowd."""
        objects = truth([[0, 0, 100, 100], [200, 200, 300, 300]], crowd=np.array([False, True]))
        detected = found([[200, 200, 300, 300], [0, 0, 100, 100]])
        assert coco_scores([objects], [detected], ["a"])["AP"] == pytest.approx(1.0)
        assert coco_scores([objects], [found(detected.boxes[1:])], ["a"])["AP"] == pytest.approx(1.0)
        counted = objects._replace(crowd=None)
        assert coco_scores([counted], [found(detected.boxes[1:])], ["a"])["AP"] == pytest.approx(51 / 101)

    def test_classes_that_are_confused(self):
        scores = coco_scores([truth([[0, 0, 100, 100]], [0])], [found([[0, 0, 100, 100]], [1])], NAMES)
        assert scores["AP"] == 0
        assert scores["classes"] == {"a": 0.0, "b": None, "c": None}

    def test_sizes_go_by_the_areas_of_objects(self):
        """A box of 100 x 100 of which the object fills little."""
        box = [[0, 0, 100, 100]]
        scores = coco_scores([truth(box, areas=np.array([900.0]))], [found(box)], ["a"])
        assert (scores["APS"], scores["APM"], scores["APL"]) == (pytest.approx(1.0), None, None)
        assert coco_scores([truth(box)], [found(box)], ["a"])["APL"] == pytest.approx(1.0)

    def test_nothing_found(self):
        scores = coco_scores([truth([[0, 0, 20, 20]]), truth([])], [found([]), found([])], ["a", "b"])
        assert (scores["AP"], scores["APS"], scores["APM"], scores["AR100"]) == (0.0, 0.0, None, 0.0)
        assert scores["classes"] == {"a": 0.0, "b": None}

    def test_nothing_there(self):
        scores = coco_scores([truth([])], [found([[0, 0, 20, 20]])], ["a"])
        assert scores["AP"] is None
        assert scores["classes"] == {"a": None}

    def test_says_nothing(self, capsys):
        coco_scores([truth([[0, 0, 20, 20]])], [found([])], ["a"])
        assert capsys.readouterr() == ("", "")

    def test_without_pycocotools(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
        with pytest.raises(ImportError, match=r'pip install "keras_cnv2\[detection\]"'):
            coco_scores([], [], ["a"])


def find_colours(images, enlarge=0):
    """A detector that knows what a box of each class looks like."""
    count = np.zeros(len(images), int)
    boxes, classes = np.full((len(images), 3, 4), -1.0), np.full((len(images), 3), -1)
    for n, image in enumerate(images.numpy()):
        for number, name in enumerate(COLOURS):
            if seen := extent(image, name):
                boxes[n, count[n]] = np.add(seen, [-enlarge, -enlarge, enlarge, enlarge])
                classes[n, count[n]] = number
                count[n] += 1
    return {"boxes": boxes, "classes": classes, "scores": np.where(classes < 0, -1.0, 0.9), "count": count}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three pictures of 40 x 30 as images of 80, loaded once; the last batch has an empty place."""
    source = VocFolder(write_voc(tmp_path_factory.mktemp("voc"), 6, 3))
    source.loaded = [*source.evaluation(recipe(image_size=80), 2)]
    source.evaluation = lambda recipe, batch_size, share: source.loaded
    return source


class Worker:
    """One of two workers that are threads; stands for `training.distribute.devices.Devices`."""

    workers = 2

    def __init__(self, worker, said, barrier):
        self.worker, self.said, self.barrier = worker, said, barrier
        self.is_chief = worker == 0

    def gather(self, content):
        self.said[self.worker] = json.dumps(content)
        self.barrier.wait()
        return [*map(json.loads, self.said)]


class TestEvaluate:
    def test_a_perfect_detector(self, source, capsys):
        figures = evaluate(find_colours, source, recipe(), 2)
        assert figures["AP"] == pytest.approx(1.0)
        assert figures["classes"] == dict.fromkeys(COLOURS, pytest.approx(1.0))
        assert figures["images"] == 3
        assert figures["images_per_second"] > 0
        assert "evaluating" in capsys.readouterr().err

    def test_boxes_that_are_too_large(self, source, capsys):
        def find(images):
            return find_colours(images, enlarge=4)

        figures = evaluate(find, source, recipe(), 2, visible=False)
        assert 0 < figures["AP"] < 0.6
        assert capsys.readouterr() == ("", "")

    def test_what_lies_outside_of_a_picture_is_cut_off(self, source):
        def find(images):
            found = find_colours(images)
            return {**found, "boxes": np.where(found["boxes"] < 0, -1, [-9, -9, 99, 99])}

        truths = [
            Truth(*source.truth(string)[:4])
            for *_, strings, _ in source.loaded
            for string in strings
            if len(string.numpy())
        ]
        whole = [Found(np.float32([[0, 0, 40, 30]] * len(t.classes)), t.classes, 0.9 * t.classes**0) for t in truths]
        figures = evaluate(find, source, recipe(), 2, visible=False)
        assert figures["AP"] == coco_scores(truths, whole, COLOURS)["AP"]
        assert figures["AR100"] == 0

    def test_a_single_batch_has_no_rate(self, source):
        assert evaluate(find_colours, source, recipe(), 4, visible=False)["images_per_second"] is None

    def test_two_workers_get_the_figures_of_one(self, tmp_path, monkeypatch):
        """Five images in batches of four: one worker has three of them, the other two and an empty batch's part."""
        source = VocFolder(write_voc(tmp_path, 6, 5))
        compared = []

        def keep(truths, found, class_names):
            compared.append([*zip(truths, found)])
            return {}

        monkeypatch.setattr("training.evaluation.detection.coco_scores", keep)
        expected = evaluate(find_colours, source, recipe(image_size=80), 4, visible=False)
        said, barrier = [None, None], threading.Barrier(2, timeout=60)
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(
                lambda worker: evaluate(
                    find_colours, source, recipe(image_size=80), 4, Worker(worker, said, barrier), visible=False
                ),
                range(2),
            )
            assert [one["images"] for one in found] == [expected["images"]] * 2 == [5, 5]
        assert [len(json.loads(part)) for part in said] == [2, 2]
        assert [sum(map(len, json.loads(part))) for part in said] == [3, 2]
        for rows in compared[1:]:
            for (truth_, found_), (other_truth, other_found) in zip(rows, compared[0], strict=True):
                for one, two in zip([*truth_, *found_], [*other_truth, *other_found], strict=True):
                    np.testing.assert_array_equal(one, two)
                    assert one.dtype == two.dtype

    def test_nothing_to_evaluate_on(self, tmp_path):
        source = VocFolder(write_voc(tmp_path, 2), validation_share=0.0)
        with pytest.raises(DataError, match="pictures to evaluate on"):
            evaluate(find_colours, source, recipe(), 2)
