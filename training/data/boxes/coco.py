"""COCO: folders of pictures, and for each split a JSON file with all objects."""

import contextlib
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..errors import check_names, quote
from ..splits import hold_out
from .annotations import LARGEST, Annotations, Example, check_known, cleaned, number, side
from .masks import from_polygons, from_runs, require_pycocotools, runs_of

# Prefix of annotation files; the name of the split follows, which is also the name of its folder of pictures.
PREFIX = "instances_"

# Errors that reading a file of any other content may raise.
FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def read_coco(path=None, train=None, validation=None, validation_share=0.1, seed=0, masks=False):
    """Reads annotations in COCO format.

    A folder holds annotations/instances_train2017.json with pictures in train2017, and
    annotations/instances_val2017.json with pictures in val2017. The year may differ or be missing; of several years the
    last is read. Without validation annotations, a share of the training pictures is held out. Classes are numbered in
    the order of their ids. Objects with iscrowd become `crowd`.

    Args:
        path: The folder; `None` if `train` is given.
        train: Optional pair of paths, a JSON file and the folder of its pictures.
        validation: Optional pair of paths, likewise.
        validation_share: Float from 0 to 1, the share to hold out.
        seed: Int, decides which pictures are held out.
        masks: Bool, whether masks are read, which takes long for many objects. A file in which no object has a
            segmentation has no masks.

    Returns:
        `Annotations`.

    Raises:
        DataError: If annotations are missing or not readable, only some objects have masks, or validation has unknown
            classes.
        ImportError: If masks are read and pycocotools is not installed.
    """
    if masks:
        require_pycocotools()
    if train is None:
        train, validation = (_files(Path(path), split) for split in ("train", "val"))
        if train is None:
            raise DataError(f"There is no file annotations/{PREFIX}train*.json in this folder. Received: {path}")
    examples, categories = _read(*train, masks)
    class_names = tuple(categories.values())
    check_names(class_names, train[0])
    if validation is None:
        by_id = {example.id: example for example in examples}
        splits = ([by_id[id] for id in ids] for ids in hold_out([*by_id], validation_share, seed))
    else:
        held_out, others = _read(*validation, masks)
        check_known(others.values(), class_names, "Validation", validation[0])
        if others != categories:
            raise DataError(
                f"The files of training and validation number their classes differently. Received: {train[0]} and "
                f"{validation[0]}"
            )
        splits = examples, held_out
    return cleaned(Annotations(*splits, class_names), train[0])


def _files(path, split):
    """Returns the JSON file of a split and its folder of pictures, or `None`."""
    found = sorted((path / "annotations").glob(f"{PREFIX}{split}*.json"))
    return (found[-1], path / found[-1].stem.removeprefix(PREFIX)) if found else None


def _read(file, folder, masks):
    """Reads a JSON file. Returns its examples, and its classes as a dict from ids, in order, to names."""
    file, folder = Path(file), Path(folder)
    if not file.is_file():
        raise DataError(f"This file of annotations is missing. Received: {file}")
    if not folder.is_dir():
        raise DataError(f"The pictures of {file} must lie in a folder of this name. Received: {folder}")
    try:
        content = json.loads(file.read_bytes())
        categories = sorted(content["categories"], key=lambda category: category["id"])
        categories = {id: category["name"] for id, category in _by_id("categories", categories).items()}
        images = _by_id("images", content["images"])
        rows = [_object(annotation, masks) for annotation in content["annotations"]]
        if not images or not categories:
            raise ValueError("it has no images or no categories")
        for name in categories.values():
            _text("names of its categories", name)
        return _examples(images, categories, rows, folder, masks), categories
    except FAULTS as error:
        raise DataError(f"This is not a COCO annotation file: {_reason(error)}. Received: {file}") from error


def _reason(error):
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


@contextlib.contextmanager
def _named(what, entry):
    """A context that adds to errors which entry of the file they are about."""
    try:
        yield
    except FAULTS as error:
        id = entry.get("id") if isinstance(entry, dict) else entry
        raise ValueError(f"{what} {str(id)[:40]}: {_reason(error)}") from error


def _by_id(what, entries):
    """Returns entries by their ids. Raises an error if an id repeats, since its objects would be ambiguous."""
    found = {entry["id"]: entry for entry in entries}
    if len(found) < len(entries):
        repeated = [id for id, count in Counter(entry["id"] for entry in entries).items() if count > 1]
        raise ValueError(f"it has {what} of the same id: {quote([*map(str, repeated)])}")
    return found


def _object(annotation, masks):
    """Returns the picture's id, the class's id, box, crowd, area, segmentation and id of an annotation.

    The segmentation is `None` if there is none or masks are not wanted.
    """
    with _named("annotation", annotation):
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"bbox must be 4 numbers: left, top, width, height, it is {str(box)[:40]}")
        left, top, width, height = (number("bbox", value) for value in box)
        area = annotation.get("area")
        area = width * height if area is None else number("area", area, LARGEST**2)
        crowd = annotation.get("iscrowd") or 0
        if crowd not in (0, 1):
            raise ValueError(f"iscrowd must be 0 or 1, it is {str(crowd)[:40]}")
        box = left, top, left + width, top + height
        segmentation = annotation.get("segmentation") or None if masks else None
        return annotation["image_id"], annotation["category_id"], box, crowd, area, segmentation, annotation.get("id")


def _mask(segmentation, height, width):
    """Encodes a mask.

    Args:
        segmentation: List of polygons, each a list of x, y, x, y, ...; or a dict of "size", height and width, and
            "counts", run lengths as a list of ints or compressed to a string.
        height, width: Ints, the size of the picture in pixels.

    Returns:
        Bytes, see `training.data.boxes.masks`.

    Raises:
        ValueError: If it is not a segmentation of a picture of this size.
    """
    if isinstance(segmentation, list):
        # Points far outside are pixels of another picture, or errors.
        largest = 4 * max(height, width)
        return from_polygons([_polygon(polygon, largest) for polygon in segmentation], height, width)
    if not isinstance(segmentation, dict):
        raise ValueError(f"segmentation must be a list of polygons or an RLE, it is {str(segmentation)[:40]}")
    size, counts = segmentation["size"], segmentation["counts"]
    if size != [height, width]:
        raise ValueError(f"an RLE must have the size of its picture, {[height, width]}, it has {str(size)[:40]}")
    if isinstance(counts, str):
        counts = runs_of(counts.encode())
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError(f"counts of an RLE must be a string or whole numbers, they are {str(counts)[:40]}")
    return from_runs(counts, height, width)


def _polygon(values, largest):
    if not isinstance(values, list) or len(values) < 6 or len(values) % 2:
        count = f"{len(values)} numbers" if isinstance(values, list) else str(values)[:40]
        raise ValueError(f"a polygon must be 6 or more numbers: x, y, x, y, ..., it is {count}")
    if any(math.isnan(number("a polygon's coordinate", value, largest)) for value in values):
        raise ValueError("a polygon's coordinate must be a number, it is NaN")
    return values


def _text(what, value):
    """Checks and returns a name in the file. Rejects strings that no file name or log can contain."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{what} are not strings")
    value.encode()  # fails for lone surrogates
    return value


def _examples(images, categories, rows, folder, masks):
    of_image = {id: [] for id in images}
    for what, column, known in (("images", 0, images), ("categories", 1, categories)):
        unknown = sorted({row[column] for row in rows} - {*known})
        if unknown:
            raise ValueError(f"its objects refer to {what} that it does not list: {quote([*map(str, unknown)])}")
    without = [str(row[-1]) for row in rows if row[-2] is None]
    masks = masks and (len(without) < len(rows) or not rows)
    if without and masks:
        raise ValueError(
            f"the head mask_rcnn needs masks of all objects, and {len(without)} of its {len(rows)} have no "
            f"segmentation, annotations {quote(without)}; give them one, or train with --head faster_rcnn"
        )
    for id, *row in rows:
        of_image[id].append(row)
    numbers = {id: number for number, id in enumerate(categories)}

    def masks_of(found, height, width):
        for *_, segmentation, id in found:
            with _named("annotation", id):
                yield _mask(segmentation, height, width)

    def example(id):
        image, found = images[id], of_image[id]
        with _named("image", image):
            path = folder / _text("names of its files", image["file_name"])
            width, height = (side(name, image[name]) for name in ("width", "height"))
        classes = np.array([numbers[category] for category, *_ in found], "int32")
        boxes, crowd, areas = (
            np.array([row[n] for row in found], t) for n, t in ((1, "float32"), (2, bool), (3, "float32"))
        )
        counts = [*masks_of(found, height, width)] if masks else None
        return Example(str(path), str(id), width, height, boxes.reshape(-1, 4), classes, crowd, areas, counts)

    return [example(id) for id in images]
