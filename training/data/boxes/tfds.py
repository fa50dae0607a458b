"""Data source for TensorFlow Datasets with boxes."""

import logging
import os

import tensorflow as tf

from keras_cnv2.images.orientation import turned_sides

from ...errors import DataError
from ..faults import after_call
from ..tfds_rows import TfdsRows, open_pictures, tensorflow_datasets
from .annotations import areas_of
from .augment import stored_sides
from .task import Boxes

logger = logging.getLogger(__name__)

# Names of the features in TensorFlow Datasets that mark crowd objects.
CROWDS = ("is_crowd", "is_difficult")


class TfdsBoxes(Boxes):
    """A data set of TensorFlow Datasets with the features "image" and "objects", such as "coco/2017" and "voc/2007".

    Objects have "bbox" and "label", and may have "is_crowd" or "is_difficult", and "area". For the splits see
    `training.data.tfds_rows.TfdsRows`.

    Args:
        name, data_dir: See `training.data.tfds_rows.open_pictures`.
        validation_share: Float from 0 to 1, the share to hold out if there is no validation split.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks a feature or split.
    """

    def __init__(self, name, data_dir=None, validation_share=0.1, shuffle_buffer=2_000, **options):
        tfds = tensorflow_datasets()

        builder, known = open_pictures(name, data_dir)
        objects = getattr(known.get("objects"), "feature", {})
        if not {"bbox", "label"} <= {*objects} or not isinstance(objects["label"], tfds.features.ClassLabel):
            raise DataError(
                f"{name} has no objects with bbox and label. Received: a data set of {', '.join(sorted(known))}"
            )
        self._crowd = next((crowd for crowd in CROWDS if crowd in objects), None)
        wanted = {feature: True for feature in ("bbox", "label", "area", self._crowd) if feature in objects}
        wanted = {"image": True, "objects": wanted}
        rows = TfdsRows(builder, name, wanted, self._open, validation_share, shuffle_buffer, batch=_padded_batch)
        super().__init__(rows, tuple(objects["label"].names), **options)

    def _open(self, row):
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
        contents = after_call(
            contents,
            ~tf.reduce_all(kept),
            self._say_left_out,
            lambda: [row["tfds_id"], tf.math.count_nonzero(~kept)],
        )
        columns = (boxes, classes, crowd, areas)
        return contents, orientation, *(tf.boolean_mask(column, kept) for column in columns), None

    def _say_left_out(self, name, count):
        """Logs once per picture how many of its boxes are left out, which is not known before it is read."""
        if self.faults.is_new("boxes", name):
            logger.warning("%s: %d boxes outside of their picture or without area left out", os.fsdecode(name), count)


def _padded_batch(rows, batch_size):
    """Batches rows. The number of objects differs between pictures: padding has the label -1."""
    padding = tf.nest.map_structure(lambda spec: None, rows.element_spec)
    padding["objects"]["label"] = tf.constant(-1, tf.int64)
    return rows.padded_batch(batch_size, padding_values=padding)
