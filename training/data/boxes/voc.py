"""Pascal VOC: a folder with one XML file for each picture."""

import logging
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from keras_cnv2.files import read_file
from keras_cnv2.images.folders import visible
from keras_cnv2.images.pictures import SUFFIXES

from ...errors import DataError
from ..errors import quote
from ..splits import hold_out
from .annotations import Annotations, Example, areas_of, check_known, cleaned, number, side

logger = logging.getLogger(__name__)

# Names of the training and validation lists in ImageSets/Main; the first pair that exists is used.
SPLITS = (("train", "val"), ("trainval", "test"), ("train", "test"))

# Maximum size of an XML file in bytes, enough for some ten thousand objects.
MAX_FILE = 2**23


def read_voc(path, class_names=None, validation_share=0.1, seed=0):
    """Reads a folder in Pascal VOC layout: Annotations/ID.xml, JPEGImages/ID.jpg, ImageSets/Main/SPLIT.txt.

    Training and validation pictures are listed in train.txt and val.txt, else in trainval.txt and test.txt, else in
    train.txt and test.txt. Without such a pair, a share is held out of trainval.txt, of train.txt or of all
    annotations. VOC's boxes hold pixel numbers from 1 on, the last one included; they are converted to coordinates
    from 0 on. Objects marked difficult become `crowd`.

    Args:
        path: The folder.
        class_names: Names of the classes. `None`: the sorted names in the training annotations, or in all annotations
            if a share is held out.
        validation_share: Float from 0 to 1, the share to hold out.
        seed: Int, decides which pictures are held out.

    Returns:
        `Annotations`.

    Raises:
        DataError: If annotations are missing or not readable, or have unknown classes.
    """
    path = Path(path)
    train, validation, is_drawn = _split(path, validation_share, seed)
    objects = _read_all(path / "Annotations", [*train, *validation])

    def names_in(ids):
        return {name for id in ids for name, *_ in objects[id][2]}

    if class_names is None:
        # The classes must not depend on which pictures are held out.
        class_names = sorted(names_in([*train, *validation] if is_drawn or not train else train))
    check_known(names_in(train), class_names, "Training", path)
    check_known(names_in(validation), class_names, "Validation", path)
    pictures = _pictures(path / "JPEGImages")
    numbers = {name: number for number, name in enumerate(class_names)}

    def example(id):
        width, height, found = objects[id]
        boxes = np.array([box for _, box, _ in found], "float32").reshape(-1, 4)
        classes = np.array([numbers[name] for name, *_ in found], "int32")
        difficult = np.array([difficult for *_, difficult in found], bool)
        file = path / "JPEGImages" / pictures.get(id, f"{id}.jpg")
        return Example(str(file), id, width, height, boxes, classes, difficult, areas_of(boxes))

    splits = ([example(id) for id in split] for split in (train, validation))
    return cleaned(Annotations(*splits, tuple(class_names)), path)


def _split(path, share, seed):
    """Returns the ids for training and for validation, and whether the latter were held out at random."""
    lists = {file.stem: _ids(file) for file in sorted((path / "ImageSets" / "Main").glob("*.txt"))}
    for train, validation in SPLITS:
        if train in lists and validation in lists:
            splits = lists[train], lists[validation]
            if both := {*splits[0]} & {*splits[1]}:
                raise DataError(f"{train}.txt and {validation}.txt both list {quote(sorted(both))}. Received: {path}")
            is_drawn = False
            break
    else:
        is_drawn = True
        every = lists.get("trainval") or lists.get("train")
        every = every or sorted(file.stem for file in (path / "Annotations").glob("*.xml"))
        splits = hold_out(every, share, seed)
    if not any(splits):
        raise DataError(f"There are no annotations (Annotations/*.xml) in this folder. Received: {path}")
    return *splits, is_drawn


def _ids(file):
    """Returns the ids that a file lists, without duplicates."""
    try:
        lines = read_file(file).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"This is not a list of pictures in UTF-8: {error}. Received: {file}") from error
    return [*dict.fromkeys(filter(None, map(str.strip, lines)))]


def _pictures(folder):
    """Returns a dict from ids to names of picture files. File names given in annotations are often wrong."""
    if not folder.is_dir():
        raise DataError(f"Pictures must lie in a folder JPEGImages. Received: {folder.parent}")
    # If several files share an id, one with a readable suffix wins; other files are reported as left out.
    names = sorted((entry.name for entry in visible(folder)), key=lambda name: name.lower().endswith(SUFFIXES))
    return {Path(name).stem: name for name in names}


def _read_all(folder, ids):
    """Returns a dict from ids to width, height and a list of (name, box, difficult)."""
    missing = [f"{id}.xml" for id in sorted(ids) if not (folder / f"{id}.xml").is_file()]
    if missing:
        raise DataError(f"{len(missing)} files of annotations are missing: {quote(missing)}. Received: {folder}")
    return {id: _read(folder / f"{id}.xml") for id in ids}


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses document types, and with them entities: annotations do not need them, attacks use them."""

    def doctype(self, name, pubid, system):
        raise ValueError("it declares a document type")


def _read(file):
    try:
        if file.stat().st_size > MAX_FILE:
            raise ValueError(f"it is larger than {MAX_FILE} bytes")
        root = ElementTree.parse(file, ElementTree.XMLParser(target=_NoDoctype())).getroot()
        width, height = (side(name, int(_text(root, f"size/{name}"))) for name in ("width", "height"))
        return width, height, [_object(element) for element in root.findall("object")]
    except (ValueError, LookupError, ElementTree.ParseError) as error:  # LookupError: unknown encoding
        raise DataError(f"This is not a Pascal VOC annotation file: {error}. Received: {file}") from error


def _object(element):
    left, top, right, bottom = (
        number(name, float(_text(element, f"bndbox/{name}"))) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    difficult = int(element.findtext("difficult", "0").strip() or 0) > 0
    return _text(element, "name"), (left - 1, top - 1, right, bottom), difficult


def _text(element, tag):
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise ValueError(f"there is no {tag} in <{element.tag}>")
    return text
