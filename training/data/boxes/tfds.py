"""Data source for TensorFlow Datasets with boxes."""

import logging
import os

import numpy as np
import tensorflow as tf

from keras_cnv2.images.orientation import turned_sides
from keras_cnv2.images.pictures import READING

from ...errors import DataError
from ..tfds_rows import TfdsRows, check_image, features_of, open_builder, tensorflow_datasets
from .annotations import areas_of
from .augment import stored_sides
from .task import Boxes

logger = logging.getLogger(__name__)

# Names of the features in TensorFlow Datasets that mark crowd objects.
CROWDS = ("is_crowd", "is_difficult")


class TfdsBoxes(TfdsRows, Boxes):
    """A data set of TensorFlow Datasets with the features "image" and "objects", such as "coco/2017" and "voc/2007".

    Objects have "bbox" and "label", and may have "is_crowd" or "is_difficult", and "area".

    Args:
        name: As in `tfds.builder`.
        data_dir: Folder of prepared data sets; `None` for the default of TensorFlow Datasets.
        validation_share: Float from 0 to 1, the share to hold out if there is no validation split.
        max_unreadable: Largest share of all pictures that may be unreadable.
        reading: `keras_cnv2.images.pictures.Reading`.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks a feature or split.
    """

    def __init__(
        self, name, data_dir=None, validation_share=0.1, max_unreadable=0.01, reading=READING, shuffle_buffer=2_000
    ):
        tfds = tensorflow_datasets()

        builder = open_builder(name, data_dir)
        known = features_of(builder)
        check_image(known, name)
        objects = getattr(known.get("objects"), "feature", {})
        if not {"bbox", "label"} <= {*objects} or not isinstance(objects["label"], tfds.features.ClassLabel):
            raise DataError(
                f"{name} has no objects with bbox and label. Received: a data set of {', '.join(sorted(known))}"
            )
        self._crowd = next((crowd for crowd in CROWDS if crowd in objects), None)
        wanted = {feature: True for feature in ("bbox", "label", "area", self._crowd) if feature in objects}
        decoders = {"image": tfds.decode.SkipDecoding()}
        sizes = self._keep(
            builder, name, {"image": True, "objects": wanted}, decoders, validation_share, shuffle_buffer
        )
        super().__init__(*sizes, tuple(objects["label"].names), max_unreadable, reading)
        self._told = set()

    def _batched(self, rows, batch_size):
        # The number of objects differs between pictures: padding has the label -1.
        padding = tf.nest.map_structure(lambda spec: None, rows.element_spec)
        padding["objects"]["label"] = tf.constant(-1, tf.int64)
        return rows.padded_batch(batch_size, padding_values=padding)

    def _open(self, rows, key):
        row = self._row(rows, key)
        objects = tf.nest.map_structure(lambda x: tf.boolean_mask(x, row["objects"]["label"] >= 0), row["objects"])
        orientation = self.reading.orientation(row["image"])
        contents = self.reading.checked(row["image"], orientation)
        height, width = tf.unstack(tf.cast(turned_sides(stored_sides(contents), orientation), tf.float32))
        top, left, bottom, right = tf.unstack(tf.clip_by_value(objects["bbox"], 0, 1), axis=-1)
        boxes = tf.stack([left * width, top * height, right * width, bottom * height], axis=-1)
        classes = tf.cast(objects["label"], tf.int32)
        crowd = objects.get(self._crowd, tf.zeros_like(classes, tf.bool))
        areas = tf.cast(objects.get("area", areas_of(boxes)), tf.float32)
        kept = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=-1)
        told = tf.cond(
            tf.reduce_all(kept),
            lambda: tf.constant(0, tf.int64),
            lambda: tf.numpy_function(self._tell, [row["tfds_id"], tf.math.count_nonzero(~kept)], tf.int64),
        )
        columns = (boxes, classes, crowd, areas)
        with tf.control_dependencies([told]):
            return tf.identity(contents), orientation, *(tf.boolean_mask(column, kept) for column in columns)

    def _tell(self, name, count):
        """Logs once per picture how many of its boxes are left out, which is not known before it is read."""
        with self._lock:
            if name not in self._told:
                self._told.add(name)
                logger.warning(
                    "%s: %d boxes outside of their picture or without area left out", os.fsdecode(name), count
                )
        return np.int64(count)
