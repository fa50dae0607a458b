"""Batches of square images, with or without classes, for pre-training and fine-tuning, from any storage."""

import tensorflow as tf

from keras_cnv2.images.pictures import to_square

from ...errors import DataError
from ..pictures import PictureSource
from ..shares import WHOLE
from .augment import shift
from .crops import random_crop


class Pictures(PictureSource):
    """A source of pictures with or without classes.

    Args: As `training.data.pictures.PictureSource`. The elements of a row are the encoded picture and an int32
        label.
    """

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """Returns endless batches of random resized crops, in a new order each epoch.

        Of the augmentation, only mixup and CutMix depend on the workers: they mix images within a worker's part.

        Args:
            recipe: The `training.recipes.fields.Recipe`.
            first_batch, share: See `training.data.loader.Loader.training`.
            augmentation: Optional `training.data.images.augment.Augmentation`.

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
            return self.loader.training(recipe, first_batch, share, load, finish=lambda images, labels, draws: images)
        return self.loader.training(recipe, first_batch, share, load, change, augmentation.batch)

    def validation(self, recipe, batch_size, share=WHOLE, mixed=False):
        """Returns batches with every validation image once, without augmentation, with its label.

        Args:
            recipe: The `training.recipes.fields.Recipe`.
            batch_size, share: See `training.data.loader.Loader.validation`.
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

        return self.loader.validation(batch_size, share, self._as_in_evaluation(recipe), finish, mixed)

    def examples(self, recipe, count, labelled=False):
        """Returns images as in `validation`, an array, selected by `training.data.loader.Loader.examples`.

        If `labelled`, also returns int32 labels `(count,)`.
        """
        images, labels = self.loader.examples(count, self._as_in_evaluation(recipe))
        return (images, labels) if labelled else images

    def _as_in_evaluation(self, recipe):
        def load(contents, label):
            return to_square(self.reading.pixels(contents, recipe.image_size), recipe.image_size, recipe.resize), label

        return load


def _flips_in_turns(contents, seed, epoch):
    """Returns whether a picture is mirrored in an epoch. A hash of its bytes selects even or odd epochs."""
    first = tf.strings.to_hash_bucket_strong(contents, 2, [seed, 0])
    return (first + epoch) % 2 == 1
