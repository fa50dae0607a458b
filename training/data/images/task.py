"""Batches of square images, with or without classes, for pre-training and fine-tuning, from any storage."""

import tensorflow as tf

from keras_cnv2.images.pictures import to_square

from ...errors import DataError
from ..loader import Loader
from ..shares import WHOLE
from .augment import shift
from .crops import random_crop


class Pictures(Loader):
    """A source of pictures with or without classes.

    A subclass's `_open` returns for each row the encoded picture and an int32 label.

    Args: As `training.data.loader.Loader`.
    """

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """Returns endless batches of random resized crops, in a new order each epoch.

        The augmentation of a picture depends on its position in the batch, not on the worker that loads it. Only mixup
        and CutMix mix images within a worker's part.

        Args:
            recipe: The `training.recipes.fields.Recipe`.
            first_batch: Number of the first batch. Earlier batches are not decoded.
            augmentation: Optional `training.data.images.augment.Augmentation`.
            share: `training.data.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, where N is the share's
            part of `recipe.step_batch`; with an augmentation, of such images and float32 targets `(N, classes)`.

        Raises:
            DataError: If there is an augmentation but no labels.
        """
        if augmentation is not None and self.class_names is None:
            raise DataError("Pictures without labels train without augmentation. Received: labelled=False")

        def load(contents, label, draws, epoch):
            flip = _flips_in_turns(contents, recipe.seed, epoch) if recipe.alternate_flip else recipe.flip
            image = random_crop(contents, recipe.image_size, recipe.crop_area, flip, draws, self.reading)
            if recipe.shift:
                image = tf.ensure_shape(shift(image, recipe.shift, draws), image.shape)
            return image, label

        def change(image, label, draws):
            return tf.ensure_shape(augmentation.image(image, draws), image.shape), label

        if augmentation is None:
            return self._training_batches(recipe, first_batch, share, load, finish=lambda images, labels, draws: images)
        return self._training_batches(recipe, first_batch, share, load, change, augmentation.batch)

    def validation(self, recipe, batch_size, share=WHOLE, mixed=False):
        """Returns batches with every validation image once, without augmentation, with its label.

        Args:
            recipe: The `training.recipes.fields.Recipe`.
            batch_size: Int. All batches have this size, to keep shapes static; padding has weight 0.
            share: `training.data.shares.Share`, the part of each batch that is loaded.
            mixed: Bool, whether images come in the order of `examples`; those of a folder are sorted by class.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, one-hot float32 labels
            `(N, classes)` and float32 weights `(N,)`, where N is the share's part of `batch_size`; `None` if there are
            no validation images or no labels.
        """
        if not self.validation_size or self.class_names is None:
            return None

        def finish(images, labels):
            return images, tf.one_hot(labels, len(self.class_names))

        return self._validation_batches(batch_size, share, self._as_in_evaluation(recipe), finish, mixed)

    def examples(self, recipe, count, labelled=False):
        """Returns a fixed selection of images, from validation if there is any.

        Args:
            recipe: The `training.recipes.fields.Recipe`.
            count: Int, the maximum number of images.
            labelled: Bool, whether to return labels as well.

        Returns:
            A float32 array `(count, image_size, image_size, 3)` in 0..255; if `labelled`, also int32 labels `(count,)`.

        Raises:
            DataError: If there is no readable picture.
        """
        images, labels = self._example_columns(count, self._as_in_evaluation(recipe))
        return (images, labels) if labelled else images

    def _as_in_evaluation(self, recipe):
        def load(contents, label):
            return to_square(self.reading.pixels(contents, recipe.image_size), recipe.image_size, recipe.resize), label

        return load


def _flips_in_turns(contents, seed, epoch):
    """Returns whether a picture is mirrored in an epoch. A hash of its bytes selects even or odd epochs."""
    first = tf.strings.to_hash_bucket_strong(contents, 2, [seed, 0])
    return (first + epoch) % 2 == 1
