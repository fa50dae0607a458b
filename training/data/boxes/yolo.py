"""YOLO: a text file of objects for each picture, and data.yaml with the folders and the names of the classes."""

import logging
import math
import os
from pathlib import Path

import numpy as np

from keras_cnv2.files import read_file
from keras_cnv2.images.classes import numbered
from keras_cnv2.images.folders import LeftOut, pictures_below
from keras_cnv2.images.pictures import READING

from ...drawing.progress import progress_of
from ...errors import DataError
from ..errors import check_names, quote, say_left_out
from ..sizes import sizes_of
from ..splits import hold_out
from . import masks as run_lengths
from .annotations import Annotations, Example, areas_of, cleaned

logger = logging.getLogger(__name__)

# Names of the YAML file in a folder; the first one that exists is read.
FILES = ("data.yaml", "data.yml")
SUFFIXES = (".yaml", ".yml")

# Maximum sizes in bytes of the YAML file and of the label file of a picture.
MAX_YAML, MAX_LABELS = 2**20, 2**23

# Values are shares of a picture. Larger ones than this are not of an object at its border, but pixels.
LARGEST = 2

# The texts with which YAML says that a key has no value.
EMPTY = ("", "~", "null", None)


def yaml_of(path):
    """Returns the YAML file of a folder, or the file itself if `path` is one; `None` if there is none."""
    path = Path(os.path.abspath(path))
    files = [path] if path.suffix.lower() in SUFFIXES else [path / name for name in FILES]
    return next((file for file in files if file.is_file()), None)


def read_yolo(path, validation_share=0.1, seed=0, masks=False, reading=READING):
    """Reads data in the layout of YOLO.

    data.yaml has `train`, optionally `val`, each a folder of pictures, a text file that lists pictures, or several of
    these, relative to `path` (by default the file's own folder); and `names`, a list of classes or a dict from their
    numbers, or only their number `nc`. Without `val`, a share of the training pictures is held out.

    The labels of images/a/b.jpg are in labels/a/b.txt; of several folders images, the last one is replaced. Each line
    is an object: its class, then either centre x, centre y, width and height of its box, or x, y, x, y, ... of the
    corners of a polygon, all as shares of the width and the height of the upright picture. The box of a polygon is that
    of its corners. A picture without such a file or with an empty one is a picture without objects.

    Args:
        path: The folder with data.yaml, or a YAML file.
        validation_share: Float from 0 to 1, the share to hold out.
        seed: Int, decides which pictures are held out.
        masks: Bool, whether masks are made from polygons. Then all objects must have polygons.
        reading: `keras_cnv2.images.pictures.Reading`, whether pictures are turned upright.

    Returns:
        `Annotations`.

    Raises:
        DataError: If data.yaml or labels are missing or not readable, or `masks` and an object has no polygon.
        ImportError: If `masks` and pycocotools is not installed.
    """
    if masks:
        run_lengths.require_pycocotools()
    file = yaml_of(path)
    if file is None:
        raise DataError(f"There is no file {FILES[0]} in this folder. Received: {path}")
    content = _content(file)
    names = _names(content, file)
    train, validation = (_pictures(content, split, file) for split in ("train", "val"))
    if not train:
        raise DataError(f"train must be a folder or a list of pictures, and it has none. Received: {file}")
    if validation is None:
        below = {os.path.relpath(picture, file.parent): picture for picture in train}
        train, validation = ([below[id] for id in ids] for ids in hold_out([*below], validation_share, seed))
    elif both := {*train} & {*validation}:
        logger.warning("%s: %d pictures are both in train and in val", file, len(both))
    pictures = train + validation
    if not any(os.path.isfile(label_file(picture)) for picture in pictures):
        raise DataError(
            f"No picture has a file of labels; that of {pictures[0]} would be {label_file(pictures[0])}. "
            f"Received: {file}"
        )
    sized = progress_of(zip(pictures, sizes_of(pictures, reading)), len(pictures), "reading labels")
    examples = [_example(picture, size, len(names), masks, file.parent) for picture, size in sized]
    return cleaned(Annotations(examples[: len(train)], examples[len(train) :], names), file)


def label_file(picture):
    """Returns the path of a picture's labels, with the last folder images of its path replaced by labels."""
    *folders, name = Path(picture).parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return str(Path(*folders, name).with_suffix(".txt"))


def _content(file):
    """Reads a YAML file. All values are strings, lists or dicts: YAML would take the class names no and on for false.

    Anchors and their aliases are refused, with which a small file may stand for a large amount of data.
    """
    import yaml  # comes with huggingface_hub

    class Loader(yaml.BaseLoader):
        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has aliases (*)")
            return super().compose_node(parent, index)

    try:
        content = yaml.load(_text(file, MAX_YAML), Loader)
        if not isinstance(content, dict):
            raise ValueError("it has no keys train and names")
        if "kpt_shape" in content:
            raise ValueError("it is of poses (kpt_shape), whose labels are neither boxes nor polygons")
        return content
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"This is not a data.yaml of YOLO: {reason}. Received: {file}") from error


def _text(file, largest):
    contents = read_file(file)
    if len(contents) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return contents.decode("utf-8-sig")


def _names(content, file):
    """Returns the names of the classes, a tuple."""
    names, count = content.get("names"), content.get("nc")
    count = None if count in EMPTY else count
    if isinstance(names, dict):
        numbers = [str(place) for place in range(len(names))]
        if {*names} != {*numbers}:
            raise DataError(
                f"names must number the classes from 0 on, without gaps. Received: {file} with {quote([*names])}"
            )
        names = [names[place] for place in numbers]
    elif names in EMPTY and isinstance(count, str) and count.isdecimal():
        # Longer numbers are not of classes; of thousands of digits, `int` raises an error.
        names = [*numbered(int(count))] if len(count) < len(str(MAX_YAML)) else None
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise DataError(f"names must be a list of classes, or a dict from their numbers. Received: {file}")
    if count not in (None, str(len(names))):
        raise DataError(f"nc must be the number of names, {len(names)}. Received: nc: {count} in {file}")
    check_names(names, file)
    return tuple(names)


def _is_name(value):
    """Returns whether a value is text that files and logs can contain, which lone surrogates are not."""
    return isinstance(value, str) and value != "" and value == value.encode(errors="ignore").decode()


def _is_path(value):
    return _is_name(value) and "\0" not in value


def _pictures(content, split, file):
    """Returns the paths of the pictures of a split, without duplicates; `None` if there is no such split."""
    entries = content.get(split)
    if entries in EMPTY:
        return None
    entries = entries if isinstance(entries, list) else [entries]
    root = content.get("path")
    if not all(map(_is_path, entries)) or not (root in EMPTY or _is_path(root)):
        raise DataError(f"{split} and path must be paths. Received: {file}")
    roots = [file.parent] if root in EMPTY else [file.parent / root, file.parent]
    return [*dict.fromkeys(picture for entry in entries for picture in _listed(entry, split, roots, file))]


def _listed(entry, split, roots, file):
    """Returns the paths of the pictures in a folder or in a text file."""
    # Some programs write ../train/images for train/images beside data.yaml, which YOLO accepts.
    shorter = [entry.removeprefix("../")] if entry.startswith("../") else []
    places = [Path(os.path.normpath(root / name)) for name in (entry, *shorter) for root in roots]
    found = next((place for place in places if os.path.exists(place)), None)
    if found is None:
        raise DataError(f"{split} must be an existing folder or list of pictures. Received: {entry} in {file}")
    if found.is_dir():
        left_out = LeftOut()
        pictures = pictures_below(found, left_out)
        left_out.suffixes.pop(".txt", None)  # labels may lie beside the pictures
        say_left_out(found, left_out)
        return pictures
    try:
        lines = [line.strip() for line in read_file(found).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"This is not a list of pictures in UTF-8: {error}. Received: {found}") from error
    # Relative to the list itself, as YOLO takes ./; else to the data.
    return [_first_file([found.parent, *roots], line) for line in lines if line and "\0" not in line]


def _first_file(folders, name):
    places = [os.path.normpath(folder / name) for folder in folders]
    return next((place for place in places if os.path.isfile(place)), places[0])


def _example(picture, size, classes, masks, folder):
    id = os.path.relpath(picture, folder)
    if size is None:  # counts as unreadable later
        width, height, rows = 1, 1, []
    else:
        (width, height), rows = size.upright, _objects(label_file(picture), classes, masks)
    numbers = np.array([number for number, _ in rows], "int32")
    corners = [corners * [width, height] for _, corners in rows]
    boxes = np.array([np.concatenate([one.min(0), one.max(0)]) for one in corners], "float32").reshape(-1, 4)
    found, areas = None, areas_of(boxes)
    if masks:
        inside = [one.clip(0, [width, height]).ravel().tolist() for one in corners]
        try:
            found = [run_lengths.from_polygons([one], height, width) for one in inside]
        except ValueError as error:
            raise DataError(f"A polygon is no mask: {error}. Received: {label_file(picture)}") from error
        areas = run_lengths.areas_of(found, height, width)
    return Example(str(picture), id, width, height, boxes, numbers, np.zeros(len(boxes), bool), areas, found)


def _objects(file, classes, masks):
    """Reads a file of labels. Returns pairs of class and corners `(n, 2)`, shares of the picture; of boxes two."""
    try:
        lines = _text(file, MAX_LABELS).splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DataError(f"This is not a label file of YOLO: {error}. Received: {file}") from error
    rows = []
    for place, line in enumerate(lines, start=1):
        try:
            rows += [_object(line.split(), classes, masks)] if line.strip() else []
        except ValueError as error:
            raise DataError(f"Line {place} is no label of YOLO: {error}. Received: {file}") from error
    return rows


def _object(values, classes, masks):
    first, *others = map(_number, values)
    if any(abs(value) > LARGEST for value in others):
        raise ValueError("its numbers must be shares of the width and height of the picture, not pixels")
    if first % 1 or not 0 <= first < classes:
        raise ValueError(f"its class must be a whole number from 0 to {classes - 1}, it is {values[0][:40]}")
    if len(others) != 4 and (len(others) < 6 or len(others) % 2):
        raise ValueError(
            "a class must be followed by the 4 numbers of a box, or by 2 for each of at least 3 corners of a polygon; "
            f"there are {len(others)}"
        )
    if len(others) > 4:
        return int(first), np.reshape(others, (-1, 2))
    if masks:
        raise ValueError("it is a box, but the head mask_rcnn needs polygons; train with --head faster_rcnn")
    x, y, width, height = others
    if width < 0 or height < 0:
        raise ValueError(f"width and height must not be negative, they are {values[3][:40]} and {values[4][:40]}")
    return int(first), np.array([[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]])


def _number(text):
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value
