"""Batches of pictures with class maps for training and evaluation, from any storage."""

import logging
import os

import tensorflow as tf

from keras_cnv2.images.decode import decode
from keras_cnv2.images.orientation import UPRIGHT, turned, turned_sides

from ...errors import DataError
from ..errors import quote
from ..faults import after_call
from ..pictures import PictureSource
from ..shares import WHOLE
from .augment import fitted_example, random_example
from .labels import decode_labels, holds_numbers

logger = logging.getLogger(__name__)


class Scenes(PictureSource):
    """A source of pictures with class maps ("labels").

    Invalid labels end the pipeline at once with a `DataError` that names them: numbers of no class, another size than
    the picture's, colours instead of numbers. Damaged files are left out, as in all sources.

    Args:
        rows: As in `training.data.pictures.PictureSource`. The elements of a row are the encoded picture, the
            encoded labels and a name.
        class_names: Tuple of two strings or more.
        ignore_label: Int, the label of pixels that are ignored.
        reduce_zero_label: Bool, whether classes are numbered from 1 on in the files, and 0 is ignored.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, rows, class_names, ignore_label, reduce_zero_label, **options):
        super().__init__(rows, class_names, **options)
        if len(class_names) < 2:
            raise DataError(
                "classes must be 2 or more; give one class for everything else, such as the background. "
                f"Received: {len(class_names)}, {quote([*class_names])}"
            )
        if reduce_zero_label and ignore_label < len(class_names):
            raise DataError(
                f"ignore_label must be {len(class_names)} or more, because the classes are numbered from 0 on after "
                f"reduce_zero_label has removed label 0. Received: ignore_label={ignore_label}"
            )
        if ignore_label < len(class_names):  # intended for some data sets, a mistake for others
            logger.warning(
                "class %s is neither trained nor measured: it is the ignore_label", class_names[ignore_label]
            )
        self.ignore_label = ignore_label
        self.reduce_zero_label = reduce_zero_label

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """Returns endless batches of random crops, in a new order for each pass over the pictures.

        Args:
            recipe: The recipe, see `training.data.scenes.augment.random_example`.
            first_batch, share: See `training.data.loader.Loader.training`.
            augmentation: Not used: the recipe defines the augmentation.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255 and int32 labels
            `(N, image_size, image_size)`, where N is the share's part of `recipe.step_batch`.
        """

        def load(picture, labels, name, draws, epoch):
            pixels, classes = self._decode(picture, labels, name)
            return random_example(pixels, classes, recipe, self.ignore_label, draws)

        return self.loader.training(recipe, first_batch, share, load)

    def validation(self, recipe, batch_size, share=WHOLE):
        """Returns batches with every validation picture once, the whole picture fitted into a square.

        Args:
            recipe: The recipe, of which only `image_size` is used.
            batch_size, share: See `training.data.loader.Loader.validation`. Padding is black, with ignored labels.

        Returns:
            A `tf.data.Dataset` of images and labels as in training, and float32 weights `(N,)`; `None` if there are
            no validation pictures.
        """
        if not self.validation_size:
            return None

        def without_empty(images, labels, weights):
            return images, tf.where(weights[:, None, None] > 0, labels, self.ignore_label), weights

        return self.loader.validation(batch_size, share, self._fitted(recipe)).map(without_empty)

    def examples(self, recipe, count):
        """Returns images and labels as in `validation`, arrays, selected by `training.data.loader.Loader.examples`."""
        return self.loader.examples(count, self._fitted(recipe))

    def whole(self, share=WHOLE, mixed=False):
        """Iterates over every validation picture once, in its own size, for the final evaluation.

        Args:
            share: `training.data.shares.Share`: worker i of n gets pictures i, i + n, i + 2n, ...
            mixed: Bool, whether pictures come in the order of `examples`: the first frames of a video look alike.

        Returns:
            An iterator of tuples: pixels, uint8 `(height, width, 3)`; int32 labels `(height, width)`; a name.

        Raises:
            DataError: If labels are invalid, or too many pictures cannot be read.
        """

        def load(picture, labels, name):
            # Serialized, because tensors of different shapes cannot be batched.
            return (*map(tf.io.serialize_tensor, self._decode(picture, labels, name)), name)

        def parse(pixels, labels, name):
            return tf.io.parse_tensor(pixels, tf.uint8), tf.io.parse_tensor(labels, tf.int32), name

        pictures = self.loader.one_by_one(share, load, mixed).map(parse).prefetch(1)
        with self.clear_errors():
            for pixels, labels, name in pictures.as_numpy_iterator():
                yield pixels, labels, os.fsdecode(name)

    def _fitted(self, recipe):
        def load(picture, labels, name):
            return fitted_example(*self._decode(picture, labels, name), recipe.image_size, self.ignore_label)

        return load

    def _decode(self, picture, labels, name):
        """Decodes a picture and its labels. Returns pixels, and the class number of each pixel."""
        pixels, numbers = self._decode_alike(picture, labels, name)
        first = int(self.reduce_zero_label)
        ignored = numbers == self.ignore_label
        if self.reduce_zero_label:
            ignored |= numbers == 0
        wrong = ~ignored & ((numbers < first) | (numbers >= first + len(self.class_names)))
        size, labels_size = tf.shape(pixels)[:2], tf.shape(numbers)
        are_numbers, fit = holds_numbers(labels), tf.reduce_all(size == labels_size)

        def refused():
            values = tf.sort(tf.unique(tf.boolean_mask(numbers, wrong))[0])
            return [name, are_numbers, size, labels_size, values]

        is_wrong = ~are_numbers | ~fit | tf.reduce_any(wrong)
        pixels, numbers = after_call((pixels, numbers), is_wrong, self._refuse, refused)
        return pixels, tf.where(ignored, self.ignore_label, numbers - first)

    def _decode_alike(self, picture, labels, name):
        """Decodes pixels and label numbers, each turned by its own EXIF orientation.

        Both stay as stored if their sizes agree only in that case.
        """
        orientations = [self.reading.orientation(contents) for contents in (picture, labels)]
        picture, labels = (
            self.reading.checked(contents, orientation)
            for contents, orientation in zip((picture, labels), orientations)
        )
        pixels, numbers = decode(picture), decode_labels(labels)
        sizes = tf.shape(pixels)[:2], tf.shape(numbers)
        seen, seen_labels = (turned_sides(size, orientation) for size, orientation in zip(sizes, orientations))
        is_stored = tf.reduce_any(seen != seen_labels) & tf.reduce_all(sizes[0] == sizes[1])
        is_stored = after_call(is_stored, is_stored, self.faults.say_unturned, lambda: [name])
        of_picture, of_labels = (tf.where(is_stored, UPRIGHT, orientation) for orientation in orientations)
        return turned(pixels, of_picture), turned(numbers[..., None], of_labels)[..., 0]

    def _refuse(self, name, are_numbers, size, labels_size, values):
        """Raises a `DataError` about a picture's invalid labels."""
        first = int(self.reduce_zero_label)
        if not are_numbers:
            demand, received = "be numbers of classes, a PNG of grey levels or indexed colours", "a PNG of colours"
        elif any(size != labels_size):
            demand = f"have the size of their picture, {size[1]} x {size[0]}"
            received = f"{labels_size[1]} x {labels_size[0]}"
        else:
            demand = f"be from {first} to {first + len(self.class_names) - 1}, or {self.ignore_label} to be ignored"
            received = quote([str(value) for value in values])
        self.faults.fail(DataError(f"Labels must {demand}. Received: {received} in {os.fsdecode(name)}"))
