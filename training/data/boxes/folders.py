"""Data sources for folders of pictures, one for each layout."""

import os

import numpy as np
import tensorflow as tf

from keras_cnv2.images.orientation import UPRIGHT, turned_sides
from keras_cnv2.images.pictures import READING

from ...errors import DataError
from ..faults import after_call
from ..file_rows import FileRows
from .augment import stored_sides
from .coco import read_coco
from .labelled import read_labelled
from .task import Boxes
from .voc import read_voc
from .yolo import read_yolo


class FileBoxes(Boxes):
    """A source of pictures in files; the annotations are kept in memory, masks as run lengths.

    Args:
        annotations: `training.data.boxes.annotations.Annotations`.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, annotations, **options):
        *splits, class_names = annotations
        examples = [example for split in splits for example in split]
        counts = [int((~example.crowd).sum()) for example in examples]
        fullest = max(zip(counts, (example.path for example in examples)), key=lambda pair: pair[0])
        files = ([example.path for example in split] for split in splits)
        has_masks = all(example.masks is not None for example in examples)
        super().__init__(FileRows(*files, self._open), class_names, fullest, has_masks, **options)
        ends = np.cumsum([0, *(len(example.boxes) for example in examples)])
        with tf.device("cpu"):
            # The objects of all pictures, concatenated; those of picture i are at _ends[i] to _ends[i + 1].
            self._ends = tf.constant(ends, tf.int64)
            self._sides = tf.constant([(example.height, example.width) for example in examples], tf.int32)
            self._columns = [
                tf.constant(np.concatenate([getattr(example, name) for example in examples]))
                for name in ("boxes", "classes", "crowd", "areas")
            ]
            masks = [mask for example in examples for mask in example.masks] if has_masks else []
            self._masks = tf.constant(masks, tf.string)

    def _open(self, file, number):
        own = slice(self._ends[number], self._ends[number + 1])
        contents, told = self._read(file, number), self._sides[number]
        orientation = self.reading.orientation(contents)
        contents = self.reading.checked(contents, orientation)
        stored = stored_sides(contents)
        is_seen = tf.reduce_all(turned_sides(stored, orientation) == told)
        contents = after_call(contents, ~is_seen, self._unlike, lambda: [file, stored, told])
        columns = [column[own] for column in self._columns]
        masks = self._masks[own] if self.has_masks else None
        return contents, tf.where(is_seen, orientation, UPRIGHT), *columns, masks

    def _read(self, file, number):
        """Returns the encoded picture of this path and number."""
        return tf.io.read_file(file)

    def _unlike(self, file, stored, told):
        """Handles annotations whose size is not that of the upright picture.

        Logs once if it is the size of the picture as stored. Raises a `DataError` otherwise.
        """
        if all(stored == told):
            self.faults.say_unturned(file)
            return
        self.faults.fail(
            DataError(
                f"Annotations must have the size of their picture, {stored[1]} x {stored[0]}. "
                f"Received: {told[1]} x {told[0]} for {os.fsdecode(file)}"
            )
        )


class VocFolder(FileBoxes):
    """A folder in Pascal VOC layout.

    Args:
        path, class_names, validation_share, seed: See `training.data.boxes.voc.read_voc`.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, path, class_names=None, validation_share=0.1, seed=0, **options):
        super().__init__(read_voc(path, class_names, validation_share, seed), **options)


class CocoFolder(FileBoxes):
    """Folders of pictures with annotations in COCO format.

    Args:
        path, train, validation, validation_share, seed, masks: See `training.data.boxes.coco.read_coco`.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, path=None, train=None, validation=None, validation_share=0.1, seed=0, masks=False, **options):
        super().__init__(read_coco(path, train, validation, validation_share, seed, masks), **options)


class YoloFolder(FileBoxes):
    """Pictures with labels in YOLO's text files.

    Args:
        path, validation_share, seed, masks, reading: See `training.data.boxes.yolo.read_yolo`.
        **options: `max_unreadable` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, path, validation_share=0.1, seed=0, masks=False, reading=READING, **options):
        super().__init__(read_yolo(path, validation_share, seed, masks, reading), reading=reading, **options)


class LabelledFolder(FileBoxes):
    """A folder of pictures and of PNGs with the number of the object of each pixel.

    Args:
        path, validation_share, seed, masks, reading: See `training.data.boxes.labelled.read_labelled`.
        **options: `max_unreadable` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, path, validation_share=0.1, seed=0, masks=False, reading=READING, **options):
        super().__init__(read_labelled(path, validation_share, seed, masks, reading), reading=reading, **options)
