"""Masks as labelled PNGs: each pixel holds the number of its object. The boxes are those around the masks."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cnv2.files import read_file
from keras_cnv2.images.folders import LeftOut, pictures_below, visible
from keras_cnv2.images.header import picture_size
from keras_cnv2.images.pictures import READING

from ...drawing.progress import progress_of
from ...errors import DataError
from ..errors import quote, say_left_out
from ..loader import CORES
from ..scenes.class_names import CLASSES_FILE, names_beside
from ..scenes.labels import SIGNATURE, decode_labels, holds_numbers
from ..sizes import sizes_of
from ..splits import VALIDATION_NAMES, hold_out
from . import masks as run_lengths
from .annotations import Annotations, Example, check_known, cleaned

# Names of the folders of pictures and of masks: ours, and those of Penn-Fudan.
FOLDERS = (("images", "masks"), ("PNGImages", "PedMasks"))

# What may follow the name of a picture in the name of its mask.
ENDINGS = ("", "_mask")

# Largest number of objects in a mask: one with more is a photo or a depth map.
MAX_OBJECTS = 5000

# The name of the only class, unless classes.txt has another one.
NAME = "object"


def folders_of(path):
    """Returns the folders of pictures and of masks in a folder, two paths; `None` if they are not there."""
    pairs = (tuple(path / name for name in names) for names in FOLDERS)
    return next((pair for pair in pairs if pair[0].is_dir() and pair[1].is_dir()), None)


def is_labelled(path):
    """Returns whether a folder has folders of pictures and of masks, of training or without splits."""
    return bool(folders_of(path / "train") or folders_of(path))


def read_labelled(path, validation_share=0.1, seed=0, masks=False, reading=READING):
    """Reads a folder of pictures and of PNGs with the number of the object of each pixel, 0 for none.

    The PNG of images/ID.jpg is masks/ID.png or masks/ID_mask.png, grey or with a palette, of up to 16 bits. All objects
    are of one class, whose name is in classes.txt, else "object". For several classes, masks has a folder for each,
    masks/CLASS/ID.png; a picture needs a PNG in at least one of them. classes.txt may order these classes, otherwise
    they are sorted.

    With train/images, train/masks and the same in val, these are the splits. Otherwise a share of the pictures is held
    out. The folders may also be called PNGImages and PedMasks, as those of Penn-Fudan are.

    Args:
        path: The folder.
        validation_share: Float from 0 to 1, the share to hold out.
        seed: Int, decides which pictures are held out.
        masks: Bool, whether masks are kept, not only the boxes around them.
        reading: `keras_cnv2.images.pictures.Reading`, how pictures are read.

    Returns:
        `Annotations`.

    Raises:
        DataError: If masks are missing or not readable, hold colours instead of numbers, or have another size than
            their picture.
        ImportError: If `masks` and pycocotools is not installed.
    """
    if masks:
        run_lengths.require_pycocotools()
    path = Path(path)
    train = folders_of(path / "train") or folders_of(path)
    if train is None:
        raise DataError(f"There are no folders images and masks in this folder. Received: {path}")
    validation = None
    if train[0].parent != path:
        validation = next(filter(None, (folders_of(path / name) for name in VALIDATION_NAMES)), None)
    names, subfolders = _classes(path, train[1])
    if validation is None:
        by_id = {example.id: example for example in _examples(*train, subfolders, masks, reading)}
        splits = ([by_id[id] for id in ids] for ids in hold_out([*by_id], validation_share, seed))
    else:
        check_known(_classes(path, validation[1])[0], names, "Validation", validation[1])
        splits = (_examples(*folders, subfolders, masks, reading) for folders in (train, validation))
    return cleaned(Annotations(*splits, names), path)


def _classes(path, folder):
    """Returns the names of the classes, and the subfolder of each in a folder of masks: two tuples."""
    names, entries = names_beside(path), visible(folder)
    if any(entry.name.lower().endswith(".png") for entry in entries):
        if names and len(names) > 1:
            raise DataError(
                f"Masks of several classes must lie in a folder for each, such as {folder / names[0]}. "
                f"Received: PNGs in {folder}, and {CLASSES_FILE} with {quote([*names])}"
            )
        return names or (NAME,), ("",)
    found = tuple(entry.name for entry in entries if entry.is_dir())
    if not found:
        raise DataError(f"There are no PNGs in this folder of masks. Received: {folder}")
    check_known(found, names or found, "A folder of masks", folder)
    return names or found, names or found


def _examples(pictures, folder, subfolders, masks, reading):
    """Returns an `Example` for each picture of a folder."""
    left_out = LeftOut()
    files = {_stem(file, pictures): file for file in pictures_below(pictures, left_out)}
    labels = [_labels(folder / subfolder, left_out) for subfolder in subfolders]
    say_left_out(pictures.parent, left_out)
    if not files:
        raise DataError(f"There are no pictures below this folder. Received: {pictures}")
    own = {id: [_of(id, found) for found in labels] for id in files}
    missing = [file for id, file in files.items() if not any(own[id])]
    if missing:
        raise DataError(
            f"{len(missing)} pictures have no mask, a PNG of the same name in {folder}: {quote(missing)}. "
            f"Received: {len(files)} pictures"
        )

    def example(id, size):
        numbered = [(place, file) for place, file in enumerate(own[id]) if file]
        return _example(files[id], id, size, numbered, masks, reading.max_pixels)

    with ThreadPoolExecutor(CORES) as pool:
        examples = pool.map(example, files, sizes_of(files.values(), reading))
        return [*progress_of(examples, len(files), "reading masks")]


def _labels(folder, left_out):
    """Returns a dict from the names of the PNGs in a folder, without suffix, to their paths."""
    return (
        {_stem(file, folder): file for file in pictures_below(folder, left_out, (".png",))} if folder.is_dir() else {}
    )


def _of(id, found):
    """Returns the PNG of a picture, `None` if there is none."""
    return next((found[id + ending] for ending in ENDINGS if id + ending in found), None)


def _stem(file, folder):
    return os.path.splitext(os.path.relpath(file, folder))[0]


def _example(picture, id, size, labels, masks, max_pixels):
    """Returns the `Example` of a picture. `labels` has pairs of class and PNG."""
    rows, shape = [], (1, 1)
    for number, file in labels if size else ():  # without a size, the picture counts as unreadable later
        numbers = _numbers(file, max_pixels)
        expected = (size.upright, size.stored) if number == labels[0][0] else (shape[::-1],)
        shape = numbers.shape
        if shape[::-1] not in expected:
            (width, height), (wide, high) = expected[0], shape[::-1]
            raise DataError(
                f"A mask must have the size of its picture {picture}, {width} x {height}. "
                f"Received: {wide} x {high} for {file}"
            )
        rows += [(number, *row) for row in _objects(numbers, file, masks)]
    classes, boxes, areas, found = zip(*rows) if rows else ((), (), (), ())
    return Example(
        path=picture,
        id=id,
        width=shape[1],
        height=shape[0],
        boxes=np.array(boxes, "float32").reshape(-1, 4),
        classes=np.array(classes, "int32"),
        crowd=np.zeros(len(rows), bool),
        areas=np.array(areas, "float32"),
        masks=[*found] if masks else None,
    )


def _objects(numbers, file, masks):
    """Yields the box, area and encoded mask of each object; `None` instead of the latter without `masks`."""
    found = np.unique(numbers)
    found = found[found > 0]
    if len(found) > MAX_OBJECTS:
        raise DataError(
            f"A mask must hold the number of an object in each pixel, at most {MAX_OBJECTS} different ones. "
            f"Received: {len(found)} in {file}"
        )
    for number in found:
        mask = (numbers == number)[None]
        yield run_lengths.boxes_around(mask)[0], mask.sum(), run_lengths.encode(mask)[0] if masks else None


def _numbers(file, max_pixels):
    """Returns the number of each pixel of a PNG, an int array `(height, width)`."""
    contents = read_file(file)
    with tf.device("cpu"):
        if not contents.startswith(SIGNATURE):
            raise DataError(f"A mask must be a PNG. Received: {file}")
        height, width = map(int, picture_size(contents))
        if height * width > max_pixels:
            raise DataError(
                f"Masks have at most {max_pixels} pixels (--max-pixels). Received: {width} x {height} in {file}"
            )
        try:
            if not holds_numbers(contents):
                raise DataError(
                    "A mask must hold numbers of objects, as grey levels or indices of a palette. "
                    f"Received: colours in {file}"
                )
            return decode_labels(contents).numpy()
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # UnicodeDecodeError: TensorFlow's message has bytes
            raise DataError(f"This PNG of a mask is damaged. Received: {file}") from error
