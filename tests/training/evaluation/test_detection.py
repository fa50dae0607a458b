import contextlib
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.training.data.boxes.small import NAMES as COLOURS
from tests.training.data.boxes.small import extent, recipe, write_voc
from training.data.boxes import masks as run_lengths
from training.data.boxes.folders import VocFolder
from training.errors import DataError
from training.evaluation.detection import Found, Truth, coco_scores, encoded, evaluate

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
            for columns in zip(*objects[:4])
        ]
        results = [
            {**row(picture, box, number), "score": float(score)}
            for picture, objects in enumerate(detections)
            for box, number, score in zip(*objects[:3])
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


SIDES = (380, 400)


def filled(boxes, height=SIDES[0], width=SIDES[1]):
    """Masks that fill boxes of whole pixels."""
    planes = np.zeros((len(boxes), height, width), "uint8")
    for plane, (left, top, right, bottom) in zip(planes, np.asarray(boxes, int)):
        plane[top:bottom, left:right] = 1
    return run_lengths.encode(planes)


def discs(boxes, share=1.0):
    """Masks of ellipses in boxes."""
    rows, columns = (np.arange(side) + 0.5 for side in SIDES)
    left, top, right, bottom = np.asarray(boxes, float).reshape(-1, 4).T[:, :, None, None]
    across = (columns - (left + right) / 2) / np.maximum(right - left, 1)
    down = (rows[:, None] - (top + bottom) / 2) / np.maximum(bottom - top, 1)
    return run_lengths.encode(across**2 + down**2 <= share / 4)


def overlaps(masks, others):
    one, two = (run_lengths.decode(some, *SIDES) for some in (masks, others))
    return (one & two).sum((1, 2)) / (one | two).sum((1, 2))


def with_masks(objects, masks):
    size = {"size": SIDES} if isinstance(objects, Truth) else {}
    return objects._replace(masks=masks, **size)


class TestMasks:
    def test_against_pycocotools_on_json_files(self, tmp_path):
        """Boxes and masks, some of them crowds, read by its own readers."""
        rng = np.random.default_rng(1)
        truths, detections = random_case()
        truths = [with_masks(t, discs(t.boxes)) for t in truths]
        truths = [t._replace(areas=run_lengths.areas_of(t.masks, *SIDES)) for t in truths]
        detections = [with_masks(d, discs(d.boxes, rng.uniform(0.7, 1.0))) for d in detections]

        def row(picture, box, number, mask):
            left, top, right, bottom = box.tolist()
            return {
                "image_id": picture,
                "category_id": int(number),
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": {"size": [*SIDES], "counts": mask.decode()},
            }

        rows = [
            {**row(picture, box, number, mask), "iscrowd": int(crowd), "area": float(area)}
            for picture, objects in enumerate(truths)
            for box, number, crowd, area, mask in zip(*objects[:5])
        ]
        results = [
            {**row(picture, box, number, mask), "score": float(score)}
            for picture, objects in enumerate(detections)
            for box, number, score, mask in zip(*objects)
        ]
        content = {
            "images": [{"id": n, "height": SIDES[0], "width": SIDES[1]} for n in range(len(truths))],
            "categories": [{"id": n} for n in range(3)],
            "annotations": [{"id": 1 + n, **row} for n, row in enumerate(rows)],
        }
        (tmp_path / "truths.json").write_text(json.dumps(content))
        of_masks = [{name: value for name, value in row.items() if name != "bbox"} for row in results]
        scores = coco_scores(truths, detections, NAMES)
        for kind, told, prefix in (("bbox", results, ""), ("segm", of_masks, "mask_")):
            (tmp_path / "results.json").write_text(json.dumps(told))
            with contextlib.redirect_stdout(io.StringIO()):
                coco = COCO(str(tmp_path / "truths.json"))
                evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            for name, place in {"AP": 0, "AP50": 1, "AP75": 2, "APS": 3, "APM": 4, "APL": 5, "AR100": 8}.items():
                assert scores[prefix + name] == pytest.approx(evaluation.stats[place], abs=1e-9), (kind, name)
            assert 0.05 < scores[f"{prefix}APS"] != scores[f"{prefix}APM"]
            classes = scores[f"{prefix}classes"]
            assert scores[f"{prefix}AP"] == pytest.approx((classes["a"] + classes["b"]) / 2)
        assert scores["AP"] != scores["mask_AP"]

    def test_all_is_found(self):
        boxes = [[0, 0, 20, 20], [30, 30, 90, 90], [5, 5, 145, 110]]
        truths = [with_masks(truth(boxes, [0, 1, 2]), discs(boxes))]
        scores = coco_scores(truths, [with_masks(found(boxes, [0, 1, 2]), discs(boxes))], NAMES)
        names = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR100")
        assert [scores[f"mask_{name}"] for name in names] == [pytest.approx(1.0)] * 7
        assert scores["mask_classes"] == dict.fromkeys(NAMES, pytest.approx(1.0))

    @pytest.mark.parametrize(("shift", "overlaps"), [(1, 10), (10, 7), (20, 4), (30, 1), (34, 0)])
    def test_a_mask_that_is_shifted(self, shift, overlaps):
        """Its box is right; its overlap is (100 - s) / (100 + s), as that of boxes above."""
        box = [[0, 0, 100, 50]]
        shifted = with_masks(found(box), filled([[shift, 0, 100 + shift, 50]]))
        scores = coco_scores([with_masks(truth(box), filled(box))], [shifted], ["a"])
        assert scores["AP"] == pytest.approx(1.0)
        assert scores["mask_AP"] == pytest.approx(overlaps / 10)
        assert scores["mask_AP50"] == pytest.approx(float(overlaps > 0))

    def test_crowd_is_ignored(self):
        """A detection within the crowd's mask counts as nothing, one beside it as wrong."""
        boxes = [[0, 0, 50, 50], [60, 60, 140, 110]]
        objects = with_masks(truth(boxes, crowd=np.array([False, True])), filled(boxes))
        for inside, expected in (([70, 70, 80, 80], 1.0), ([60, 0, 70, 10], 0.5)):
            both = [inside, boxes[0]]
            assert coco_scores([objects], [with_masks(found(both), filled(both))], ["a"])["mask_AP"] == pytest.approx(
                expected
            )

    def test_empty_masks_find_nothing(self):
        """Neither does a picture without objects or detections break anything."""
        box = [[0, 0, 50, 50]]
        truths = [with_masks(truth(box), filled(box)), with_masks(truth([]), [])]
        detections = [with_masks(found(box), filled([[0, 0, 0, 0]])), with_masks(found([]), [])]
        assert coco_scores(truths, detections, ["a"])["mask_AP"] == 0

    def test_masks_are_pasted_into_their_boxes(self, monkeypatch):
        """Full ones fill them, up to the corners, which interpolation rounds; also if pasted a few at a time."""
        boxes = np.array([[10.0, 20, 110, 60], [0, 0, 400, 380], [-20, -10, 80, 130]])
        masks = np.ones((3, 28, 28), "float32")
        whole = encoded(masks, boxes, *SIDES)
        assert np.all(overlaps(whole, filled(np.clip(boxes, 0, None))) > 0.995)
        masks[:, :14] = 0.4
        lower = [[10, 40, 110, 60], [0, 190, 400, 380], [0, 60, 80, 130]]
        assert np.all(overlaps(encoded(masks, boxes, *SIDES), filled(lower)) > 0.97)
        assert encoded(masks[:0], boxes[:0], *SIDES) == []
        monkeypatch.setattr("training.evaluation.detection.PASTED", 1)
        assert encoded(np.ones((3, 28, 28), "float32"), boxes, *SIDES) == whole


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


def find_masks(images):
    """Finds what fills its boxes."""
    found = find_colours(images)
    return {**found, "masks": np.ones((*found["classes"].shape, 4, 4), "float32")}


def truth_with_masks(string):
    *columns, _ = VocFolder.truth(string)
    return *columns, filled(columns[0], 30, 40)


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

    def test_masks(self, source, monkeypatch):
        """In the pictures' own pixels, half of those of the images. Masks of half of their boxes overlap by a half."""
        monkeypatch.setattr(source, "truth", staticmethod(truth_with_masks))
        figures = evaluate(find_masks, source, recipe(masks=True), 2, visible=False)
        assert figures["AP"] == figures["mask_AP"] == pytest.approx(1.0)
        assert figures["mask_classes"] == dict.fromkeys(COLOURS, pytest.approx(1.0))

        def find_halves(images):
            found = find_masks(images)
            found["masks"][..., 2:, :] = 0
            return found

        figures = evaluate(find_halves, source, recipe(masks=True), 2, visible=False)
        assert figures["AP"] == pytest.approx(1.0)
        assert figures["mask_AP75"] == 0

    def test_a_single_batch_has_no_rate(self, source):
        assert evaluate(find_colours, source, recipe(), 4, visible=False)["images_per_second"] is None

    def test_two_workers_get_the_figures_of_one(self, tmp_path, monkeypatch):
        """Five images in batches of four: one worker has three of them, the other two and an empty batch's part."""
        source = VocFolder(write_voc(tmp_path, 6, 5))
        source.truth, evaluation = truth_with_masks, source.evaluation
        source.evaluation = lambda recipe, *rest: evaluation(SimpleNamespace(**{**vars(recipe), "masks": False}), *rest)
        compared = []

        def keep(truths, found, class_names):
            compared.append([*zip(truths, found)])
            return {}

        monkeypatch.setattr("training.evaluation.detection.coco_scores", keep)
        settings = recipe(image_size=80, masks=True)
        expected = evaluate(find_masks, source, settings, 4, visible=False)
        said, barrier = [None, None], threading.Barrier(2, timeout=60)
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(
                lambda worker: evaluate(find_masks, source, settings, 4, Worker(worker, said, barrier), visible=False),
                range(2),
            )
            assert [one["images"] for one in found] == [expected["images"]] * 2 == [5, 5]
        assert [len(json.loads(part)) for part in said] == [2, 2]
        assert [sum(map(len, json.loads(part))) for part in said] == [3, 2]
        for rows in compared[1:]:
            for (truth_, found_), (other_truth, other_found) in zip(rows, compared[0], strict=True):
                for one, two in zip([*truth_, *found_], [*other_truth, *other_found], strict=True):
                    np.testing.assert_array_equal(one, two)
                    assert np.asarray(one).dtype == np.asarray(two).dtype

    def test_nothing_to_evaluate_on(self, tmp_path):
        source = VocFolder(write_voc(tmp_path, 2), validation_share=0.0)
        with pytest.raises(DataError, match="pictures to evaluate on"):
            evaluate(find_colours, source, recipe(), 2)
