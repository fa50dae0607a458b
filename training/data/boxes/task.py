"""Batches of pictures with boxes for training and evaluation, from any storage."""

import numpy as np
import tensorflow as tf

from keras_cnv2.detection.pictures import fit_picture

from ...errors import DataError
from ..loader import Loader
from ..shares import WHOLE
from .augment import NOTHING, jitter, padded


class Boxes(Loader):
    """A source of pictures with boxes.

    A subclass's `_open` returns for each row the encoded picture, checked by `reading`, and its orientation, int32; and
    for its objects the boxes, float32 `(objects, 4)` in pixels of the upright picture, the classes, int32 `(objects,)`,
    whether they are crowd, bools `(objects,)`, and the areas, float32 `(objects,)`. Crowd objects are used in
    evaluation only.

    Args: As `training.data.loader.Loader`.
    """

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """Returns endless batches with large-scale jitter, in a new order for each pass over the pictures.

        Args:
            recipe: Has `image_size`, `scale`, `flip`, `max_boxes`, `min_box`, `seed` and `step_batch`.
            first_batch: Number of the first batch. Earlier batches are not decoded.
            augmentation: Not used: the recipe defines the augmentation.
            share: `training.data.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, and a dict: float32
            "boxes" `(N, max_boxes, 4)`, left, top, right, bottom in pixels, and float32 "classes" `(N, max_boxes)`,
            both padded with -1.

        Raises:
            DataError: If a picture has more objects than `max_boxes`. With TensorFlow Datasets, raised only when the
                picture is read.
        """
        self._check_counts(recipe)

        def load(contents, orientation, boxes, classes, crowd, areas, draws, epoch):
            boxes, classes = self._trained_on(boxes, classes, crowd, recipe)
            return jitter(contents, boxes, classes, recipe, draws, orientation)

        def finish(images, boxes, classes, draws):
            return images, {"boxes": boxes, "classes": classes}

        return self._training_batches(recipe, first_batch, share, load, finish=finish)

    def validation(self, recipe, batch_size, share=WHOLE):
        """Returns batches with every validation picture once, whole, with its boxes.

        Args:
            recipe: As in `training`.
            batch_size: Int. All batches have this size; padding images have no boxes and weight 0.
            share: As in `training`.

        Returns:
            A `tf.data.Dataset` of images and dicts as in `training`, and float32 weights `(N,)`; `None` if there are no
            validation pictures.
        """
        if not self.validation_size:
            return None
        self._check_counts(recipe)

        def without_boxes(images, boxes, classes, weights):
            boxes = tf.where(weights[:, None, None] > 0, boxes, NOTHING)
            return images, {"boxes": boxes, "classes": tf.where(weights[:, None] > 0, classes, NOTHING)}, weights

        return self._validation_batches(batch_size, share, self._whole(recipe)).map(without_boxes)

    def evaluation(self, recipe, batch_size, share=WHOLE):
        """Returns batches with every validation picture once, whole, with the ground truth for evaluation.

        Args:
            recipe: Has `image_size`.
            batch_size, share: As in `validation`.

        Returns:
            A `tf.data.Dataset` of images as in `training`; float32 `(N,)`, the scale from pixels of the picture to
            pixels of the image; int32 `(N, 2)`, height and width of the picture; strings `(N,)`, the ground truth to be
            decoded by `truth`; and float32 weights `(N,)`.
        """

        def load(contents, orientation, boxes, classes, crowd, areas):
            pixels = self.reading.pixels(contents, recipe.image_size, orientation)
            image, scale = fit_picture(pixels, recipe.image_size)
            columns = (classes, crowd, areas)
            truth = tf.concat([boxes, *(tf.cast(column, tf.float32)[:, None] for column in columns)], axis=1)
            # Serialized, because the number of objects differs between pictures.
            return image, scale, tf.shape(pixels)[:2], tf.io.serialize_tensor(truth)

        return self._validation_batches(batch_size, share, load)

    @staticmethod
    def truth(string):
        """Decodes ground truth. Returns arrays of boxes, classes, crowd and areas, in pixels of the picture."""
        rows = tf.io.parse_tensor(string, tf.float32).numpy()
        return rows[:, :4], rows[:, 4].astype(int), rows[:, 5] > 0, rows[:, 6]

    def examples(self, recipe, count):
        """Returns a fixed selection of pictures, from validation if there is any.

        Args:
            recipe: As in `training`.
            count: Int, the maximum number of pictures.

        Returns:
            A float32 array `(count, image_size, image_size, 3)` in 0..255, and a dict of boxes and classes as in
            `training`.

        Raises:
            DataError: If there is no readable picture.
        """
        self._check_counts(recipe)
        images, boxes, classes = map(np.stack, zip(*self._examples(count, self._whole(recipe))))
        return images, {"boxes": boxes, "classes": classes}

    def _whole(self, recipe):
        """Returns a function from the elements of `_open` to the whole picture as an image, its boxes and classes."""

        def load(contents, orientation, boxes, classes, crowd, areas):
            pixels = self.reading.pixels(contents, recipe.image_size, orientation)
            image, scale = fit_picture(pixels, recipe.image_size)
            boxes, classes = self._trained_on(boxes, classes, crowd, recipe)
            return image, *padded(boxes * scale, classes, recipe.max_boxes)

        return load

    def _trained_on(self, boxes, classes, crowd, recipe):
        """Returns boxes and classes of the objects that are not crowd; raises an error if there are too many."""
        boxes, classes = tf.boolean_mask(boxes, ~crowd), tf.boolean_mask(classes, ~crowd)
        count = tf.shape(boxes)[0]
        checked = tf.cond(
            count > recipe.max_boxes,
            lambda: tf.numpy_function(lambda count: self._fail(count, recipe), [count], tf.int32),
            lambda: count,
        )
        with tf.control_dependencies([checked]):
            return tf.identity(boxes), tf.identity(classes)

    def _check_counts(self, recipe):
        """Raises a `DataError` if a picture has more objects than `max_boxes`, if that is known before reading."""

    def _fail(self, count, recipe, name="a picture"):
        self.failure = DataError(
            f"max_boxes must be at least {count}, the number of objects in {name}. "
            f"Received: max_boxes={recipe.max_boxes}"
        )
        raise self.failure

    def _report(self, tried, readable, count):
        # Too many objects, or annotations of another size, also make `load` fail: report them instead of "unreadable".
        if self.failure is not None:
            raise self.failure
        return super()._report(tried, readable, count)
