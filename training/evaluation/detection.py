"""COCO metrics of a detector: average precision of boxes and masks, over overlaps, sizes and classes."""

import contextlib
import io
import itertools
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_cnv2.detection import paste_masks

from ..data.boxes import masks as run_lengths
from ..data.boxes.annotations import areas_of
from ..data.shares import Share
from ..distribute.devices import ONE_DEVICE
from ..errors import DataError
from .speed import Speed

# The least probability of a pixel that belongs to a mask.
THRESHOLD = 0.5

# Most pixels of masks that are pasted at once, for pictures of many megapixels.
PASTED = 2**26

# What the names of the masks' metrics begin with.
MASK = "mask_"

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
        masks: List of bytes, one mask for each object as `training.data.boxes.masks` encodes it; `None` if masks are
            not evaluated.
        size: Height and width of the picture in pixels, given with `masks`.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    masks: list | None = None
    size: tuple[int, int] | None = None


class Found(NamedTuple):
    """The detections in a picture.

    Args:
        boxes: Array `(detections, 4)`: left, top, right, bottom in the picture's pixels.
        classes: Int array `(detections,)`.
        scores: Array `(detections,)`, higher means more certain.
        masks: List of bytes, one mask for each detection as `training.data.boxes.masks` encodes it; `None` if masks are
            not evaluated.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: list | None = None


def evaluate(detector, source, recipe, batch_size, devices=ONE_DEVICE, visible=True):
    """Evaluates a detector on the validation images of a source. Each worker predicts a part of them, on one device.

    Args:
        detector: `keras_cnv2.detection.Detector`, or a function from images `(N, image_size, image_size, 3)` in 0..255
            to a dict: "boxes" `(N, K, 4)` in the images' pixels, "classes" `(N, K)`, "scores" `(N, K)` and "count"
            `(N,)`, the number of detections among the K rows; the rest is padding. With `recipe.masks` also "masks"
            `(N, K, S, S)`, probabilities within the boxes.
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

    Returns a list of (truth, detections) pairs for each of its batches. Truth and detections are lists of numbers and
    strings, which workers can send each other.
    """
    predict = getattr(detector, "predict_on_batch", detector)
    share = Share(devices.worker, devices.workers)
    batches = []
    for images, scales, sides, objects, weights in source.evaluation(recipe, batch_size, share):
        detections = {name: ops.convert_to_numpy(value) for name, value in predict(images).items()}
        batch = []
        for n in np.flatnonzero(ops.convert_to_numpy(weights)):
            size = tuple(sides[n].numpy().tolist())
            found = _of_image(detections, n, float(scales[n]), size, recipe.masks)
            truth = Truth(*source.truth(objects[n]), size)
            batch.append(([*map(_sendable, truth)], [*map(_sendable, found)]))
        batches.append(batch)
        speed.step(batch_size)
    return batches


def _sendable(column):
    """Returns an array as a list, and bytes as text."""
    if isinstance(column, np.ndarray):
        return column.tolist()
    return _texts(column) if isinstance(column, list) else column


def _texts(masks):
    return [mask.decode("ascii") for mask in masks]


def _bytes(texts):
    return None if texts is None else [text.encode("ascii") for text in texts]


def _truth(boxes, classes, crowd, areas, masks, size):
    columns = np.array(classes, int), np.array(crowd, bool), np.array(areas, "float32")
    return Truth(np.array(boxes, "float32").reshape(-1, 4), *columns, _bytes(masks), tuple(size))


def _found(boxes, classes, scores, masks):
    columns = np.array(classes, int), np.array(scores, "float32")
    return Found(np.array(boxes, float).reshape(-1, 4), *columns, _bytes(masks))


def _of_image(detections, n, scale, size, masks):
    """Returns the `Found` of one image of a batch, in the picture's pixels; boxes are clipped to the picture."""
    count = int(detections["count"][n])
    boxes, classes, scores = (detections[name][n, :count] for name in ("boxes", "classes", "scores"))
    boxes = boxes / scale
    pasted = encoded(detections["masks"][n, :count], boxes, *size) if masks else None
    height, width = size
    return Found(np.clip(boxes, 0, (width, height, width, height)), classes.astype(int), scores, pasted)


def encoded(masks, boxes, height, width):
    """Pastes the masks of detections into their picture, and encodes them.

    Args:
        masks: Float32 array `(detections, S, S)`, probabilities within the boxes.
        boxes: Array `(detections, 4)`: left, top, right, bottom in the picture's pixels.
        height, width: Ints, the size of the picture in pixels.

    Returns:
        List of bytes, see `training.data.boxes.masks`.
    """
    at_once = max(PASTED // (height * width), 1)
    found = []
    for start in range(0, len(masks), at_once):
        part = slice(start, start + at_once)
        pasted = paste_masks(masks[None, part], np.float32(boxes[None, part]), height, width)
        found += run_lengths.encode(ops.convert_to_numpy(pasted)[0] >= THRESHOLD)
    return found


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
        objects; and "classes", a dict from class names to their AP. All of these are of boxes. If the truths have
        masks, also those of masks, under the same names after "mask_".

    Raises:
        ImportError: If pycocotools is not installed.
    """
    require_pycocotools()
    scores = _scores_of("bbox", truths, found, class_names)
    if any(truth.masks is not None for truth in truths):
        of_masks = _scores_of("segm", truths, found, class_names)
        scores |= {f"{MASK}{name}": value for name, value in of_masks.items()}
    return scores


def _scores_of(kind, truths, found, class_names):
    """Returns the metrics of boxes ("bbox") or masks ("segm")."""
    from pycocotools.cocoeval import COCOeval

    sizes = [dict(zip(("height", "width"), truth.size or ())) for truth in truths]
    frame = {
        "images": [{"id": number, **size} for number, size in enumerate(sizes)],
        "categories": [{"id": number} for number in range(len(class_names))],
    }
    rows = _box_rows(found) if kind == "bbox" else _mask_rows(found, truths)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints every step
        evaluation = COCOeval(_coco(frame, _truth_rows(truths)), _coco(frame, rows), kind)
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
    for image, (boxes, classes, crowd, areas, masks, size) in enumerate(truths):
        crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
        areas = areas_of(boxes) if areas is None else areas
        rows = zip(_rows(image, boxes, classes, areas), crowd, _segmentations(masks, size, len(boxes)))
        for row, is_crowd, mask in rows:
            yield {**row, **mask, "iscrowd": int(is_crowd)}


def _box_rows(found):
    for image, (boxes, classes, scores, _) in enumerate(found):
        yield from _scored(_rows(image, boxes, classes, areas_of(boxes)), scores)


def _mask_rows(found, truths):
    """Detections with masks. Small and large ones are told apart by the areas of their masks."""
    for image, ((boxes, classes, scores, masks), truth) in enumerate(zip(found, truths)):
        rows = _scored(_rows(image, boxes, classes, run_lengths.areas_of(masks, *truth.size)), scores)
        for row, mask in zip(rows, _segmentations(masks, truth.size, len(boxes))):
            yield {**row, **mask}


def _scored(rows, scores):
    for row, score in zip(rows, scores):
        yield {**row, "score": float(score), "iscrowd": 0}


def _segmentations(masks, size, count):
    """Returns the masks as entries of annotations; empty dicts if there are none."""
    if masks is None:
        return [{}] * count
    return [{"segmentation": {"size": [*size], "counts": mask}} for mask in masks]


def _rows(image, boxes, classes, areas):
    for (left, top, right, bottom), number, area in zip(np.asarray(boxes, float).tolist(), classes, areas):
        box = [left, top, right - left, bottom - top]
        yield {"image_id": image, "category_id": int(number), "bbox": box, "area": float(area)}
