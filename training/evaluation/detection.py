"""COCO metrics of a detector: average precision over overlaps, sizes and classes."""

import contextlib
import io
import itertools
from typing import NamedTuple

import numpy as np
from keras import ops

from ..data.boxes.annotations import areas_of
from ..data.shares import Share
from ..distribute.devices import ONE_DEVICE
from ..errors import DataError
from .speed import Speed

# Indices of metrics in pycocotools' `COCOeval.stats`.
FIGURES = {"AP": 0, "AP50": 1, "AP75": 2, "APS": 3, "APM": 4, "APL": 5, "AR100": 8}


class Truth(NamedTuple):
    """The annotated objects of a picture.

    Args:
        boxes: Array `(objects, 4)`: left, top, right, bottom in the picture's pixels.
        classes: Int array `(objects,)`.
        crowd: Bool array `(objects,)`, true for objects whose detection counts neither as right nor as wrong; `None` if
            there are no such objects.
        areas: Array `(objects,)` in pixels; `None` for the areas of the boxes.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None


class Found(NamedTuple):
    """The detections in a picture.

    Args:
        boxes: Array `(detections, 4)`: left, top, right, bottom in the picture's pixels.
        classes: Int array `(detections,)`.
        scores: Array `(detections,)`, higher means more certain.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def evaluate(detector, source, recipe, batch_size, devices=ONE_DEVICE, visible=True):
    """Evaluates a detector on the validation images of a source. Each worker predicts a part of them, on one device.

    Args:
        detector: `keras_cnv2.detection.Detector`, or a function from images `(N, image_size, image_size, 3)` in 0..255
            to a dict: "boxes" `(N, K, 4)` in the images' pixels, "classes" `(N, K)`, "scores" `(N, K)` and "count"
            `(N,)`, the number of detections among the K rows; the rest is padding.
        source: A source opened by `training.data.boxes.sources`.
        recipe: Has `image_size` and `masks`.
        batch_size: Int, the number of images of all workers together, a multiple of the number of workers. All batches
            are padded to this size.
        devices: `training.distribute.devices.Devices`.
        visible: Bool, whether the chief shows a progress bar.

    Returns:
        A dict, the same on all workers: the metrics of `coco_scores`, "images" and "images_per_second", which is `None`
        for a single batch.

    Raises:
        DataError: If there are no images to evaluate on.
    """
    if not source.validation_size:
        raise DataError("data must have pictures to evaluate on. Received: a source without validation pictures")
    speed = Speed(source.validation_size, visible and devices.is_chief)
    with source.clear_errors(), speed:
        batches = _predicted(detector, source, recipe, batch_size, devices, speed)
    parts = devices.gather(batches)
    # The same order as with one worker: batch by batch, and within a batch worker by worker.
    rows = [row for batch in itertools.zip_longest(*parts, fillvalue=()) for part in batch for row in part]
    if not rows:
        raise DataError("data must have pictures to evaluate on. Received: none that can be read")
    truths, found = zip(*((_truth(*truth), _found(*detections)) for truth, detections in rows))
    counts = {"images": len(rows), "images_per_second": speed.rate(len(rows), batch_size)}
    return coco_scores(truths, found, source.class_names) | counts


def _predicted(detector, source, recipe, batch_size, devices, speed):
    """Predicts a worker's part of the images.

    Returns a list of (truth, detections) pairs for each of its batches. Truth and detections are lists of numbers,
    which workers can send each other.
    """
    predict = getattr(detector, "predict_on_batch", detector)
    share = Share(devices.worker, devices.workers)
    batches = []
    for images, scales, sides, objects, weights in source.evaluation(recipe, batch_size, share):
        detections = {name: ops.convert_to_numpy(value) for name, value in predict(images).items()}
        batch = []
        for n in np.flatnonzero(ops.convert_to_numpy(weights)):
            found = _of_image(detections, n, scales[n], sides[n])
            *truth, _ = source.truth(objects[n])
            batch.append((_numbers(truth), _numbers(found)))
        batches.append(batch)
        speed.step(batch_size)
    return batches


def _numbers(columns):
    return [column.tolist() for column in columns]


def _truth(boxes, classes, crowd, areas):
    boxes = np.array(boxes, "float32").reshape(-1, 4)
    return Truth(boxes, np.array(classes, int), np.array(crowd, bool), np.array(areas, "float32"))


def _found(boxes, classes, scores):
    return Found(np.array(boxes, float).reshape(-1, 4), np.array(classes, int), np.array(scores, "float32"))


def _of_image(detections, n, scale, sides):
    """Returns boxes, classes and scores of one image of a batch. Boxes are in the picture's pixels, clipped to it."""
    count = int(detections["count"][n])
    boxes, classes, scores = (detections[name][n, :count] for name in ("boxes", "classes", "scores"))
    return np.clip(boxes / float(scale), 0, np.tile(sides.numpy()[::-1], 2)), classes.astype(int), scores


def coco_scores(truths, found, class_names):
    """Computes COCO metrics with pycocotools.

    AP is the mean of the average precision over overlaps (IoU) of 0.5, 0.55, ... 0.95 and over classes; AP50 and AP75
    use a single overlap. APS, APM and APL are for objects up to 32 x 32 pixels, up to 96 x 96 pixels and larger ones.
    AR100 is the share of objects found among at most 100 detections per picture.

    Args:
        truths: A `Truth` for each picture.
        found: A `Found` for each picture, in the same order.
        class_names: Strings.

    Returns:
        A dict: "AP", "AP50", "AP75", "APS", "APM", "APL", "AR100", floats from 0 to 1, or `None` if there are no such
        objects; and "classes", a dict from class names to their AP.

    Raises:
        ImportError: If pycocotools is not installed.
    """
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    frame = {
        "images": [{"id": number} for number in range(len(truths))],
        "categories": [{"id": number} for number in range(len(class_names))],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints every step
        evaluation = COCOeval(_coco(frame, _truth_rows(truths)), _coco(frame, _found_rows(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # Axes: overlaps, recalls, classes, sizes, numbers of detections. Selected: all sizes, 100 detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    figures = {name: _or_none(evaluation.stats[place]) for name, place in FIGURES.items()}
    classes = {name: _or_none(precision[:, :, number].mean()) for number, name in enumerate(class_names)}
    return figures | {"classes": classes}


def require_pycocotools():
    """Raises an `ImportError` that says what to install if pycocotools is missing."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise ImportError(f'COCO\'s figures need pycocotools: pip install "keras_cnv2[detection]" ({error})') from error


def _or_none(value):
    """Converts a metric of pycocotools, which is -1 if there are no objects, to a float or `None`."""
    return None if value < 0 else float(value)


def _coco(frame, rows):
    """Returns annotations as a pycocotools object."""
    from pycocotools.coco import COCO

    coco = COCO()
    # Ids start at 1, because pycocotools uses 0 for "no match".
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
