"""Batches of pictures with boxes and masks for training and evaluation, from any storage."""

import tensorflow as tf

from keras_cnv2.detection.pictures import fit_picture

from ...errors import DataError
from ..faults import after_call
from ..pictures import PictureSource
from ..shares import WHOLE
from .augment import NOTHING, jitter, padded, resized_masks


class Boxes(PictureSource):
    """A source of pictures with boxes.

    Args:
        rows: As in `training.data.pictures.PictureSource`. The elements of a row are the encoded picture, checked
            by `reading`, and its orientation, int32; and for its objects the boxes, float32 `(objects, 4)` in pixels of
            the upright picture, the classes, int32 `(objects,)`, whether they are crowd, bools `(objects,)`, and the
            areas, float32 `(objects,)`; and their masks, strings `(objects,)` as `training.data.boxes.masks` encodes
            them, or `None` if `has_masks` is false. Crowd objects are used in evaluation only.
        class_names: Tuple of strings.
        fullest: The largest number of objects in a picture that are not crowd, and the name of that picture; `None` if
            they are not known before all pictures are read.
        has_masks: Bool, whether all objects have masks.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.
    """

    def __init__(self, rows, class_names, fullest=None, has_masks=False, **options):
        super().__init__(rows, class_names, **options)
        self._fullest = fullest
        self.has_masks = has_masks

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """Returns endless batches with large-scale jitter, in a new order for each pass over the pictures.

        Args:
            recipe: Has `image_size`, `scale`, `flip`, `max_boxes`, `min_box`, `masks`, `seed` and `step_batch`.
            first_batch, share: See `training.data.loader.Loader.training`.
            augmentation: Not used: the recipe defines the augmentation.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, and a dict: float32
            "boxes" `(N, max_boxes, 4)`, left, top, right, bottom in pixels, and float32 "classes" `(N, max_boxes)`,
            both padded with -1; and if `recipe.masks`, uint8 "masks" `(N, max_boxes, image_size, image_size)`, 1 where
            the object is, padded with 0.

        Raises:
            DataError: If the recipe needs masks and there are none, or a picture has more objects than `max_boxes`.
                With TensorFlow Datasets, the latter is raised only when the picture is read.
        """
        self.check(recipe)

        def load(contents, orientation, boxes, classes, crowd, areas, masks, draws, epoch):
            boxes, classes, masks = self._trained_on(boxes, classes, crowd, masks, recipe)
            return jitter(contents, boxes, classes, recipe, draws, orientation, masks)

        def finish(images, *columns_and_draws):
            return images, _labels(*columns_and_draws[:-1])

        return self.loader.training(recipe, first_batch, share, load, finish=finish)

    def validation(self, recipe, batch_size, share=WHOLE):
        """Returns batches with every validation picture once, whole, with its boxes.

        Args:
            recipe: As in `training`.
            batch_size, share: See `training.data.loader.Loader.validation`. Padding has no boxes.

        Returns:
            A `tf.data.Dataset` of images and dicts as in `training`, and float32 weights `(N,)`; `None` if there are no
            validation pictures.
        """
        if not self.validation_size:
            return None
        self.check(recipe)

        def without_boxes(images, boxes, classes, *masks_and_weights):
            *masks, weights = masks_and_weights
            boxes = tf.where(weights[:, None, None] > 0, boxes, NOTHING)
            classes = tf.where(weights[:, None] > 0, classes, NOTHING)
            return images, _labels(boxes, classes, *masks), weights

        return self.loader.validation(batch_size, share, self._whole(recipe)).map(without_boxes)

    def evaluation(self, recipe, batch_size, share=WHOLE):
        """Returns batches with every validation picture once, whole, with the ground truth for evaluation.

        Args:
            recipe: Has `image_size` and `masks`.
            batch_size, share: As in `validation`.

        Returns:
            A `tf.data.Dataset` of images as in `training`; float32 `(N,)`, the scale from pixels of the picture to
            pixels of the image; int32 `(N, 2)`, height and width of the picture; strings `(N,)`, the ground truth to be
            decoded by `truth`; and float32 weights `(N,)`.

        Raises:
            DataError: If the recipe needs masks and there are none.
        """
        self._check_masks(recipe)

        def load(contents, orientation, boxes, classes, crowd, areas, masks):
            pixels = self.reading.pixels(contents, recipe.image_size, orientation)
            image, scale = fit_picture(pixels, recipe.image_size)
            columns = (classes, crowd, areas)
            truth = tf.concat([boxes, *(tf.cast(column, tf.float32)[:, None] for column in columns)], axis=1)
            # Serialized, because the number of objects differs between pictures.
            parts = [truth, masks] if recipe.masks else [truth]
            truth = tf.io.serialize_tensor(tf.stack([*map(tf.io.serialize_tensor, parts)]))
            return image, scale, tf.shape(pixels)[:2], truth

        return self.loader.validation(batch_size, share, load)

    @staticmethod
    def truth(string):
        """Decodes ground truth.

        Returns:
            Arrays of boxes, classes, crowd and areas, in pixels of the picture; and the masks, a list of bytes as
            `training.data.boxes.masks` encodes them, or `None` if the recipe's model predicts none.
        """
        rows, *masks = tf.io.parse_tensor(string, tf.string)
        rows = tf.io.parse_tensor(rows, tf.float32).numpy()
        masks = tf.io.parse_tensor(masks[0], tf.string).numpy().tolist() if masks else None
        return rows[:, :4], rows[:, 4].astype(int), rows[:, 5] > 0, rows[:, 6], masks

    def examples(self, recipe, count):
        """Returns images and labels as in `validation`, arrays, selected by `training.data.loader.Loader.examples`."""
        self.check(recipe)
        images, *columns = self.loader.examples(count, self._whole(recipe))
        return images, _labels(*columns)

    def _whole(self, recipe):
        """Returns a function from the elements of a row to the whole picture as an image, and its objects."""

        def load(contents, orientation, boxes, classes, crowd, areas, masks):
            pixels = self.reading.pixels(contents, recipe.image_size, orientation)
            image, scale = fit_picture(pixels, recipe.image_size)
            boxes, classes, masks = self._trained_on(boxes, classes, crowd, masks, recipe)
            labels = padded(boxes * scale, classes, recipe.max_boxes)
            if masks is None:
                return image, *labels
            sides = tf.shape(pixels)[:2]
            return image, *labels, resized_masks(masks, sides, scale, recipe.image_size, recipe.max_boxes)

        return load

    def _trained_on(self, boxes, classes, crowd, masks, recipe):
        """Selects the objects that are not crowd; raises an error if there are too many.

        Returns:
            Their boxes, classes and masks, the latter `None` if the recipe needs none.
        """
        columns = (boxes, classes, masks) if recipe.masks else (boxes, classes)
        columns = tuple(tf.boolean_mask(column, ~crowd) for column in columns)
        count = tf.shape(columns[0])[0]
        boxes, classes, *masks = after_call(
            columns, count > recipe.max_boxes, lambda count: self._fail(count, recipe), lambda: [count]
        )
        return boxes, classes, masks[0] if masks else None

    def check(self, recipe):
        """Checks what can be known before pictures are read.

        Raises:
            DataError: If the recipe needs masks and there are none, or a picture has more objects than `max_boxes`.
        """
        self._check_masks(recipe)
        if self._fullest and self._fullest[0] > recipe.max_boxes:
            self._fail(self._fullest[0], recipe, self._fullest[1])

    def _check_masks(self, recipe):
        if recipe.masks and not self.has_masks:
            raise DataError(
                "The head mask_rcnn needs masks of all objects, which COCO files have as polygons or RLE "
                "(segmentation), YOLO files as polygons, and folders of PNG masks, digits, and some of TensorFlow "
                "Datasets have as well. Without masks, train with --head faster_rcnn. Received: data without masks"
            )

    def _fail(self, count, recipe, name="a picture"):
        self.faults.fail(
            DataError(
                f"max_boxes must be at least {count}, the number of objects in {name}. "
                f"Received: max_boxes={recipe.max_boxes}"
            )
        )


def _labels(boxes, classes, *masks):
    """Returns the labels of a batch as a dict; with masks, if there are any."""
    return dict(zip(("boxes", "classes", "masks"), (boxes, classes, *masks)))
