"""Folders in the layouts of Pascal VOC and of COCO as sources of training."""

import numpy as np
import tensorflow as tf

from training.detection.boxes import Boxes
from training.detection.coco import read_coco
from training.detection.voc import read_voc
from training.rows import FileRows


class FileBoxes(FileRows, Boxes):
    """Pictures in files, with their objects in memory.

    Args:
        annotations: `training.detection.annotations.Annotations`.
        max_unreadable: Largest share of all pictures that may be unreadable.
    """

    def __init__(self, annotations, max_unreadable=0.01):
        train, validation, class_names = annotations
        super().__init__(len(train), len(validation), class_names, max_unreadable)
        self._keep(*([example.path for example in split] for split in (train, validation)))
        examples = [*train, *validation]
        self._max_count = max((~example.crowd).sum() for example in examples)
        ends = np.cumsum([0, *(len(example.boxes) for example in examples)])
        with tf.device("cpu"):
            # The objects of all pictures on end, and where those of each picture begin.
            self._ends = tf.constant(ends, tf.int64)
            self._columns = [
                tf.constant(np.concatenate([getattr(example, name) for example in examples]))
                for name in ("boxes", "classes", "crowd", "areas")
            ]

    def _open(self, rows, key):
        index = self._index(rows, key)
        own = slice(self._ends[index], self._ends[index + 1])
        return tf.io.read_file(self._files[index]), *(column[own] for column in self._columns)

    def _check_counts(self, recipe):
        if self._max_count > recipe.max_boxes:
            self._fail(self._max_count, recipe)


class VocFolder(FileBoxes):
    """A folder in the layout of Pascal VOC.

    Args:
        path, class_names, validation_share, seed: See `training.detection.voc.read_voc`.
        max_unreadable: Largest share of all pictures that may be unreadable.
    """

    def __init__(self, path, class_names=None, validation_share=0.1, seed=0, max_unreadable=0.01):
        super().__init__(read_voc(path, class_names, validation_share, seed), max_unreadable)


class CocoFolder(FileBoxes):
    """Folders of pictures with annotations in the format of COCO.

    Args:
        path, train, validation, validation_share, seed: See `training.detection.coco.read_coco`.
        max_unreadable: Largest share of all pictures that may be unreadable.
    """

    def __init__(self, path=None, train=None, validation=None, validation_share=0.1, seed=0, max_unreadable=0.01):
        super().__init__(read_coco(path, train, validation, validation_share, seed), max_unreadable)
