"""COCO's figures of a detector: average precision over overlaps, sizes and classes."""

import contextlib
import io
import time
from typing import NamedTuple

import numpy as np
from keras import ops

from ..data.boxes.annotations import areas_of
from ..drawing.progress import progress_bar
from ..errors import DataError

# Places of figures in pycocotools' `COCOeval.stats`.
FIGURES = {"AP": 0, "AP50": 1, "AP75": 2, "APS": 3, "APM": 4, "APL": 5, "AR100": 8}


class Truth(NamedTuple):
    """What is to be found in a picture.

    Args:
        boxes: Array `(objects, 4)`: left, top, right, bottom in the picture's pixels.
        classes: Int array `(objects,)`.
        crowd: Bool array `(objects,)`, what is neither right nor wrong to find; `None` for none.
        areas: Array `(objects,)` in pixels; `None` for those of the boxes.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None


class Found(NamedTuple):
    """What was found in a picture.

    Args:
        boxes: Array `(detections, 4)`: left, top, right, bottom in the picture's pixels.
        classes: Int array `(detections,)`.
        scores: Array `(detections,)`, higher is surer.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def evaluate(detector, source, recipe, batch_size, visible=True):
    """Evaluates a detector on the validation pictures of a source.

    Args:
        detector: `keras_cnv2.detection.Detector`, or a function from images `(N, image_size, image_size, 3)` in 0..255
            to a dict: "boxes" `(N, K, 4)` in the images' pixels, "classes" `(N, K)`, "scores" `(N, K)` and "count"
            `(N,)`, how many of the K count.
        source: As `training.data.boxes.sources` opens it.
        recipe: Has `image_size`.
        batch_size: Int. All batches are whole.
        visible: Bool, whether there is a progress bar.

    Returns:
        A dict: the figures of `coco_scores`, "images" and "images_per_second", `None` for a single batch.

    Raises:
        DataError: If there are no pictures to evaluate on.
    """
    if not source.validation_size:
        raise DataError("data must have pictures to evaluate on. Received: a source without validation pictures")
    predict = getattr(detector, "predict_on_batch", detector)
    truths, found = [], []
    start = rate = None
    with (
        source.clear_errors(),
        progress_bar(desc="evaluating", total=source.validation_size, leave=False, disable=not visible) as bar,
    ):
        for images, scales, sides, objects, weights in source.evaluation(recipe, batch_size):
            detections = {name: ops.convert_to_numpy(value) for name, value in predict(images).items()}
            # The first batch compiles.
            start = start or time.perf_counter()
            here = np.flatnonzero(ops.convert_to_numpy(weights))
            truths += [Truth(*source.truth(objects[n])) for n in here]
            found += [_of_picture(detections, n, float(scales[n]), sides[n].numpy()) for n in here]
            bar.update(len(here))
        seconds = time.perf_counter() - start
    if not truths:
        raise DataError("data must have pictures to evaluate on. Received: none that can be read")
    if len(truths) > batch_size:
        rate = round((len(truths) - batch_size) / seconds, 1)
    return coco_scores(truths, found, source.class_names) | {"images": len(truths), "images_per_second": rate}


def _of_picture(detections, n, scale, sides):
    """What was found in one image of a batch, in the pixels of its picture; nothing lies outside of that."""
    count = int(detections["count"][n])
    boxes, classes, scores = (detections[name][n, :count] for name in ("boxes", "classes", "scores"))
    return Found(np.clip(boxes / scale, 0, np.tile(sides[::-1], 2)), classes.astype(int), scores)


def coco_scores(truths, found, class_names):
    """COCO's figures, by pycocotools.

    AP is the mean over overlaps of 0.5, 0.55, ... 0.95 and over classes, AP50 and AP75 are of one overlap; APS, APM and
    APL of objects up to 32 x 32 pixels, up to 96 x 96 and above; AR100 is the share found among 100 detections a
    picture.

    Args:
        truths: A `Truth` a picture.
        found: A `Found` a picture, in the same order.
        class_names: Strings.

    Returns:
        A dict: "AP", "AP50", "AP75", "APS", "APM", "APL", "AR100", floats from 0 to 1, `None` where there is nothing to
        be found; and "classes", a dict from the names of the classes to their AP.

    Raises:
        ImportError: If pycocotools is not installed.
    """
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    frame = {
        "images": [{"id": number} for number in range(len(truths))],
        "categories": [{"id": number} for number in range(len(class_names))],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every step
        evaluation = COCOeval(_coco(frame, _truth_rows(truths)), _coco(frame, _found_rows(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # Overlaps, recalls, classes, sizes, numbers of detections; here all sizes, and 100 detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    figures = {name: _or_none(evaluation.stats[place]) for name, place in FIGURES.items()}
    classes = {name: _or_none(precision[:, :, number].mean()) for number, name in enumerate(class_names)}
    return figures | {"classes": classes}


def require_pycocotools():
    """Raises an error that says what to do where there can be no figures."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise ImportError(f'COCO\'s figures need pycocotools: pip install "keras_cnv2[detection]" ({error})') from error


def _or_none(value):
    """pycocotools gives -1 where there is nothing to be found."""
    return None if value < 0 else float(value)


def _coco(frame, rows):
    """Annotations as pycocotools holds them."""
    from pycocotools.coco import COCO

    coco = COCO()
    # From 1 on: 0 stands for "no match" there.
    coco.dataset = {**frame, "annotations": [{"id": number, **row} for number, row in enumerate(rows, 1)]}
    coco.createIndex()
    return coco


def _truth_rows(truths):
    for image, (boxes, classes, crowd, areas) in enumerate(truths):
        crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
        areas = areas_of(boxes) if areas is None else areas
        for row, is_crowd in zip(_rows(image, boxes, classes, areas), crowd):
            yield {**row, "iscrowd": int(is_crowd)}


def _found_rows(found):
    for image, (boxes, classes, scores) in enumerate(found):
        for row, score in zip(_rows(image, boxes, classes, areas_of(boxes)), scores):
            yield {**row, "score": float(score), "iscrowd": 0}


def _rows(image, boxes, classes, areas):
    for (left, top, right, bottom), number, area in zip(np.asarray(boxes, float).tolist(), classes, areas):
        box = [left, top, right - left, bottom - top]
        yield {"image_id": image, "category_id": int(number), "bbox": box, "area": float(area)}
