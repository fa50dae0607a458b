"""Data sources for folders in Pascal VOC and COCO layout."""

import os

import numpy as np
import tensorflow as tf

from keras_cnv2.images.orientation import UPRIGHT, turned_sides
from keras_cnv2.images.pictures import READING

from ...errors import DataError
from ..file_rows import FileRows
from .augment import stored_sides
from .coco import read_coco
from .task import Boxes
from .voc import read_voc


class FileBoxes(FileRows, Boxes):
    """A source of pictures in files; the annotations are kept in memory.

    Args:
        annotations: `training.data.boxes.annotations.Annotations`.
        max_unreadable: Largest share of all pictures that may be unreadable.
        reading: `keras_cnv2.images.pictures.Reading`.
    """

    def __init__(self, annotations, max_unreadable=0.01, reading=READING):
        train, validation, class_names = annotations
        super().__init__(len(train), len(validation), class_names, max_unreadable, reading)
        self._keep(*([example.path for example in split] for split in (train, validation)))
        examples = [*train, *validation]
        self._fullest = max(examples, key=lambda example: (~example.crowd).sum())
        ends = np.cumsum([0, *(len(example.boxes) for example in examples)])
        with tf.device("cpu"):
            # The objects of all pictures, concatenated; those of picture i are at _ends[i] to _ends[i + 1].
            self._ends = tf.constant(ends, tf.int64)
            self._sides = tf.constant([(example.height, example.width) for example in examples], tf.int32)
            self._columns = [
                tf.constant(np.concatenate([getattr(example, name) for example in examples]))
                for name in ("boxes", "classes", "crowd", "areas")
            ]

    def _open(self, rows, key):
        index = self._index(rows, key)
        own = slice(self._ends[index], self._ends[index + 1])
        contents, told = tf.io.read_file(self._files[index]), self._sides[index]
        orientation = self.reading.orientation(contents)
        contents = self.reading.checked(contents, orientation)
        stored = stored_sides(contents)
        is_seen = tf.reduce_all(turned_sides(stored, orientation) == told)
        right = tf.cond(
            is_seen,
            lambda: True,
            lambda: tf.numpy_function(self._unlike, [self._files[index], stored, told], tf.bool),
        )
        with tf.control_dependencies([right]):
            orientation = tf.where(is_seen, orientation, UPRIGHT)
            return tf.identity(contents), orientation, *(column[own] for column in self._columns)

    def _unlike(self, file, stored, told):
        """Handles annotations whose size is not that of the upright picture.

        Returns true, and logs once, if it is the size of the picture as stored. Raises a `DataError` otherwise.
        """
        if all(stored == told):
            return self._say_unturned(file)
        self.failure = DataError(
            f"Annotations must have the size of their picture, {stored[1]} x {stored[0]}. "
            f"Received: {told[1]} x {told[0]} for {os.fsdecode(file)}"
        )
        raise self.failure

    def _check_counts(self, recipe):
        count = int((~self._fullest.crowd).sum())
        if count > recipe.max_boxes:
            self._fail(count, recipe, self._fullest.path)


class VocFolder(FileBoxes):
    """A folder in Pascal VOC layout.

    Args:
        path, class_names, validation_share, seed: See `training.data.boxes.voc.read_voc`.
        max_unreadable: Largest share of all pictures that may be unreadable.
        reading: `keras_cnv2.images.pictures.Reading`.
    """

    def __init__(self, path, class_names=None, validation_share=0.1, seed=0, max_unreadable=0.01, reading=READING):
        super().__init__(read_voc(path, class_names, validation_share, seed), max_unreadable, reading)


class CocoFolder(FileBoxes):
    """Folders of pictures with annotations in COCO format.

    Args:
        path, train, validation, validation_share, seed: See `training.data.boxes.coco.read_coco`.
        max_unreadable: Largest share of all pictures that may be unreadable.
        reading: `keras_cnv2.images.pictures.Reading`.
    """

    def __init__(
        self,
        path=None,
        train=None,
        validation=None,
        validation_share=0.1,
        seed=0,
        max_unreadable=0.01,
        reading=READING,
    ):
        super().__init__(read_coco(path, train, validation, validation_share, seed), max_unreadable, reading)
