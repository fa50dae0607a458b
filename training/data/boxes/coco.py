"""COCO: folders of pictures, and for each split a JSON file with all objects."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..errors import check_names, quote
from ..splits import hold_out
from .annotations import LARGEST, Annotations, Example, check_known, cleaned, number, side

# Prefix of annotation files; the name of the split follows, which is also the name of its folder of pictures.
PREFIX = "instances_"


def read_coco(path=None, train=None, validation=None, validation_share=0.1, seed=0):
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

    Returns:
        `Annotations`.

    Raises:
        DataError: If annotations are missing or not readable, or validation has unknown classes.
    """
    if train is None:
        train, validation = (_files(Path(path), split) for split in ("train", "val"))
        if train is None:
            raise DataError(f"There is no file annotations/{PREFIX}train*.json in this folder. Received: {path}")
    examples, categories = _read(*train)
    class_names = tuple(categories.values())
    check_names(class_names, train[0])
    if validation is None:
        by_id = {example.id: example for example in examples}
        splits = ([by_id[id] for id in ids] for ids in hold_out([*by_id], validation_share, seed))
    else:
        held_out, others = _read(*validation)
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


def _read(file, folder):
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
        rows = [_object(annotation) for annotation in content["annotations"]]
        if not images or not categories:
            raise ValueError("it has no images or no categories")
        for name in categories.values():
            _text("names of its categories", name)
        return _examples(images, categories, rows, folder), categories
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"This is not a COCO annotation file: {reason}. Received: {file}") from error


def _by_id(what, entries):
    """Returns entries by their ids. Raises an error if an id repeats, since its objects would be ambiguous."""
    found = {entry["id"]: entry for entry in entries}
    if len(found) < len(entries):
        repeated = [id for id, count in Counter(entry["id"] for entry in entries).items() if count > 1]
        raise ValueError(f"it has {what} of the same id: {quote([*map(str, repeated)])}")
    return found


def _object(annotation):
    """Returns the picture's id, the class's id, box, crowd and area of an annotation."""
    left, top, width, height = (number("bbox", value) for value in annotation["bbox"])
    area = annotation.get("area")
    area = width * height if area is None else number("area", area, LARGEST**2)
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd must be 0 or 1, it is {str(crowd)[:40]}")
    return annotation["image_id"], annotation["category_id"], (left, top, left + width, top + height), crowd, area


def _text(what, value):
    """Checks and returns a name in the file. Rejects strings that no file name or log can contain."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{what} are not strings")
    value.encode()  # fails for lone surrogates
    return value


def _examples(images, categories, rows, folder):
    of_image = {id: [] for id in images}
    for what, column, known in (("images", 0, images), ("categories", 1, categories)):
        unknown = sorted({row[column] for row in rows} - {*known})
        if unknown:
            raise ValueError(f"its objects refer to {what} that it does not list: {quote([*map(str, unknown)])}")
    for id, *row in rows:
        of_image[id].append(row)
    numbers = {id: number for number, id in enumerate(categories)}

    def example(id):
        image, found = images[id], of_image[id]
        path = folder / _text("names of its files", image["file_name"])
        width, height = (side(name, image[name]) for name in ("width", "height"))
        classes = np.array([numbers[category] for category, *_ in found], "int32")
        boxes, crowd, areas = (
            np.array([row[n] for row in found], t) for n, t in ((1, "float32"), (2, bool), (3, "float32"))
        )
        return Example(str(path), str(id), width, height, boxes.reshape(-1, 4), classes, crowd, areas)

    return [example(id) for id in images]
