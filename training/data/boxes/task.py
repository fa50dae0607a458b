"""Pictures with boxes, whatever they are kept as: what training and evaluation get of them."""

import numpy as np
import tensorflow as tf

from keras_cnv2.detection.pictures import fit_picture

from ...errors import DataError
from ..loader import Loader
from ..shares import WHOLE
from .augment import NOTHING, jitter, padded


class Boxes(Loader):
    """A source of pictures with boxes.

    Of each row it opens the encoded picture, checked by `reading`, and the orientation it is seen in, int32; and of its
    objects the boxes, float32 `(objects, 4)` in pixels of the picture as it is seen; the classes, int32 `(objects,)`;
    whether they are crowd, bools `(objects,)`; and the areas, float32 `(objects,)`. What is crowd counts in evaluation
    alone.

    Args: As `training.data.loader.Loader`.
    """

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """All batches from one on, without end: large-scale jitter, in a new order each pass over the pictures.

        Args:
            recipe: Has `image_size`, `scale`, `flip`, `max_boxes`, `min_box`, `seed` and `step_batch`.
            first_batch: Number of the first batch. None of those before is decoded.
            augmentation: Not used: all that is random is the recipe's.
            share: `training.data.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, and of a dict: float32
            "boxes" `(N, max_boxes, 4)`, left, top, right, bottom in pixels, and float32 "classes" `(N, max_boxes)`,
            both with -1 where there is none.

        Raises:
            DataError: If a picture has more objects than `max_boxes`; of TensorFlow Datasets, when it is read.
        """
        self._check_counts(recipe)

        def load(contents, orientation, boxes, classes, crowd, areas, draws, epoch):
            boxes, classes = self._trained_on(boxes, classes, crowd, recipe)
            return jitter(contents, boxes, classes, recipe, draws, orientation)

        def finish(images, boxes, classes, draws):
            return images, {"boxes": boxes, "classes": classes}

        return self._training_batches(recipe, first_batch, share, load, finish=finish)

    def validation(self, recipe, batch_size, share=WHOLE):
        """Every validation picture once, whole, with its boxes.

        Args:
            recipe: As in `training`.
            batch_size: Int. All batches are whole; empty places have no boxes and the weight 0.
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
        """Every validation picture once, whole, with all that its detections are compared with.

        Args:
            recipe: Has `image_size`.
            batch_size, share: As in `validation`.

        Returns:
            A `tf.data.Dataset` of images as in `training`; float32 `(N,)`, how many pixels of the image a pixel of the
            picture is wide; int32 `(N, 2)`, height and width of the picture; strings `(N,)` that `truth` reads; and
            float32 weights `(N,)`.
        """

        def load(contents, orientation, boxes, classes, crowd, areas):
            pixels = self.reading.pixels(contents, recipe.image_size, orientation)
            image, scale = fit_picture(pixels, recipe.image_size)
            columns = (classes, crowd, areas)
            truth = tf.concat([boxes, *(tf.cast(column, tf.float32)[:, None] for column in columns)], axis=1)
            # As one string, since pictures differ in their number of objects.
            return image, scale, tf.shape(pixels)[:2], tf.io.serialize_tensor(truth)

        return self._validation_batches(batch_size, share, load)

    @staticmethod
    def truth(string):
        """The objects of a picture in its own pixels: arrays of boxes, classes, crowd and areas."""
        rows = tf.io.parse_tensor(string, tf.float32).numpy()
        return rows[:, :4], rows[:, 4].astype(int), rows[:, 5] > 0, rows[:, 6]

    def examples(self, recipe, count):
        """Always the same pictures, from validation if there is any.

        Args:
            recipe: As in `training`.
            count: Int, how many at most.

        Returns:
            A float32 array `(count, image_size, image_size, 3)` in 0..255, and a dict of boxes and classes as in
            `training`.

        Raises:
            DataError: If there is none.
        """
        self._check_counts(recipe)
        images, boxes, classes = map(np.stack, zip(*self._examples(count, self._whole(recipe))))
        return images, {"boxes": boxes, "classes": classes}

    def _whole(self, recipe):
        """A function from what `_open` returns to image, boxes and classes as in evaluation."""

        def load(contents, orientation, boxes, classes, crowd, areas):
            pixels = self.reading.pixels(contents, recipe.image_size, orientation)
            image, scale = fit_picture(pixels, recipe.image_size)
            boxes, classes = self._trained_on(boxes, classes, crowd, recipe)
            return image, *padded(boxes * scale, classes, recipe.max_boxes)

        return load

    def _trained_on(self, boxes, classes, crowd, recipe):
        """Boxes and classes of what is not crowd; raises an error if these are too many."""
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
        """Raises a `DataError` if a picture has more objects than `max_boxes`, where that is known beforehand."""

    def _fail(self, count, recipe, name="a picture"):
        self.failure = DataError(
            f"max_boxes must be at least {count}, as many objects are in {name}. Received: max_boxes={recipe.max_boxes}"
        )
        raise self.failure

    def _report(self, tried, readable, count):
        # A picture with too many objects, or annotations of another one, looks like one that cannot be read.
        if self.failure is not None:
            raise self.failure
        return super()._report(tried, readable, count)
