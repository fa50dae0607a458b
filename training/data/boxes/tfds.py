"""Data source for TensorFlow Datasets with boxes and masks."""

import logging
import os

import numpy as np
import tensorflow as tf

from keras_cnv2.images.orientation import turned_sides

from ...errors import DataError
from ..faults import after_call
from ..tfds_rows import TfdsRows, open_pictures, tensorflow_datasets
from .annotations import areas_of
from .augment import stored_sides
from .masks import encode, require_pycocotools
from .task import Boxes

logger = logging.getLogger(__name__)

# Names of the features in TensorFlow Datasets that mark crowd objects.
CROWDS = ("is_crowd", "is_difficult")

# Names of those that hold the mask of an object: an image of one channel, not 0 where the object is.
MASKS = ("segmentation", "mask")


class TfdsBoxes(Boxes):
    """A data set of TensorFlow Datasets with the features "image" and "objects", such as "coco/2017" and "voc/2007".

    Objects have "bbox" and "label", and may have "is_crowd" or "is_difficult", "area", and "segmentation" or "mask", as
    "lvis" does. For the splits see `training.data.tfds_rows.TfdsRows`.

    Args:
        name, data_dir: See `training.data.tfds_rows.open_pictures`.
        validation_share: Float from 0 to 1, the share to hold out if there is no validation split.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.
        masks: Bool, whether masks are read, if there are any.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks a feature or split.
    """

    def __init__(self, name, data_dir=None, validation_share=0.1, shuffle_buffer=2_000, masks=False, **options):
        tfds = tensorflow_datasets()

        builder, known = open_pictures(name, data_dir)
        objects = getattr(known.get("objects"), "feature", {})
        if not {"bbox", "label"} <= {*objects} or not isinstance(objects["label"], tfds.features.ClassLabel):
            raise DataError(
                f"{name} has no objects with bbox and label. Received: a data set of {', '.join(sorted(known))}"
            )
        self._crowd = next((crowd for crowd in CROWDS if crowd in objects), None)
        self._mask = next((mask for mask in MASKS if masks and mask in objects and _is_mask(objects[mask])), None)
        if self._mask:
            require_pycocotools()
        names = ("bbox", "label", "area", self._crowd, self._mask)
        wanted = {feature: True for feature in names if feature in objects}
        wanted = {"image": True, "objects": wanted}
        rows = TfdsRows(builder, name, wanted, self._open, validation_share, shuffle_buffer, batch=_padded_batch)
        super().__init__(rows, tuple(objects["label"].names), has_masks=self._mask is not None, **options)

    def _open(self, row):
        objects = tf.nest.map_structure(lambda x: tf.boolean_mask(x, row["objects"]["label"] >= 0), row["objects"])
        orientation = self.reading.orientation(row["image"])
        contents = self.reading.checked(row["image"], orientation)
        sides = turned_sides(stored_sides(contents), orientation)
        height, width = tf.unstack(tf.cast(sides, tf.float32))
        top, left, bottom, right = tf.unstack(tf.clip_by_value(objects["bbox"], 0, 1), axis=-1)
        boxes = tf.stack([left * width, top * height, right * width, bottom * height], axis=-1)
        classes = tf.cast(objects["label"], tf.int32)
        crowd = objects.get(self._crowd, tf.zeros_like(classes, tf.bool))
        areas = tf.cast(objects.get("area", areas_of(boxes)), tf.float32)
        kept = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=-1)
        columns = (boxes, classes, crowd, areas)
        if self._mask:
            masks, pixels = self._encoded(objects[self._mask], sides, row["tfds_id"])
            columns, kept = (*columns, masks), kept & (pixels > 0)
        contents = after_call(
            contents,
            ~tf.reduce_all(kept),
            self._say_left_out,
            lambda: [row["tfds_id"], tf.math.count_nonzero(~kept)],
        )
        columns = [tf.boolean_mask(column, kept) for column in columns]
        return contents, orientation, *columns, *([] if self._mask else [None])

    def _encoded(self, images, sides, name):
        """Returns encoded images `(objects,)` as run lengths `(objects,)`, and how many pixels each mask has."""

        def run_lengths(mask, sides, name):
            if mask.shape[:2] != tuple(sides):
                self.faults.fail(
                    DataError(
                        f"Masks must have the size of their picture, {sides[1]} x {sides[0]}. "
                        f"Received: {mask.shape[1]} x {mask.shape[0]} for {os.fsdecode(name)}"
                    )
                )
            return *encode(mask[None, ..., 0]), np.count_nonzero(mask)

        def one(image):
            # With 16 bits, no value is rounded to 0.
            mask = tf.io.decode_png(image, 1, tf.uint16)
            return tuple(tf.numpy_function(run_lengths, [mask, sides, name], (tf.string, tf.int64)))

        signature = tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)
        return tf.map_fn(one, images, fn_output_signature=signature)

    def _say_left_out(self, name, count):
        """Logs once per picture how many of its objects are left out, which is not known before it is read."""
        if self.faults.is_new("boxes", name):
            logger.warning("%s: %d objects outside of their picture or without area left out", os.fsdecode(name), count)


def _is_mask(feature):
    tfds = tensorflow_datasets()

    return isinstance(feature, tfds.features.Image) and feature.shape[-1] == 1


def _padded_batch(rows, batch_size):
    """Batches rows. The number of objects differs between pictures: padding has the label -1."""
    padding = tf.nest.map_structure(lambda spec: None, rows.element_spec)
    padding["objects"]["label"] = tf.constant(-1, tf.int64)
    return rows.padded_batch(batch_size, padding_values=padding)
