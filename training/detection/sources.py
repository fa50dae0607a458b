"""Pictures with boxes as sources of training."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.preprocessing import decode
from training.data import DataError, Loader
from training.detection.annotations import areas_of
from training.detection.augment import NOTHING, jitter, padded, sides_of
from training.detection.coco import PREFIX as COCO_PREFIX
from training.detection.coco import read_coco
from training.detection.voc import read_voc
from training.rows import FileRows
from training.shares import WHOLE
from training.tfds import TfdsRows, check_image, features_of, open_builder

# What TensorFlow Datasets call the objects that count as crowd.
CROWDS = ("is_crowd", "is_difficult")


class Boxes(Loader):
    """A source of pictures with boxes.

    Of each row it opens the encoded picture; and of its objects the boxes, float32 `(objects, 4)` in the picture's
    pixels; the classes, int32 `(objects,)`; whether they are crowd, bools `(objects,)`; and the areas, float32
    `(objects,)`. What is crowd counts in evaluation alone.

    Args: As `training.data.Loader`.
    """

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """All batches from one on, without end: large-scale jitter, in a new order each pass over the pictures.

        Args:
            recipe: Has `image_size`, `scale`, `flip`, `max_boxes`, `min_box`, `seed` and `step_batch`.
            first_batch: Number of the first batch. None of those before is decoded.
            augmentation: Not used: all that is random is the recipe's.
            share: `training.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, and of a dict: float32
            "boxes" `(N, max_boxes, 4)`, left, top, right, bottom in pixels, and float32 "classes" `(N, max_boxes)`,
            both with -1 where there is none.

        Raises:
            DataError: If a picture has more objects than `max_boxes`; of TensorFlow Datasets, when it is read.
        """
        self._check_counts(recipe)

        def load(contents, boxes, classes, crowd, areas, draws):
            boxes, classes = self._trained_on(boxes, classes, crowd, recipe)
            return jitter(contents, boxes, classes, recipe, draws)

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

        def load(contents, boxes, classes, crowd, areas):
            pixels = decode(contents)
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
            count: Int.

        Returns:
            A float32 array `(count, image_size, image_size, 3)` in 0..255, and a dict of boxes and classes as in
            `training`.

        Raises:
            DataError: If there are fewer.
        """
        self._check_counts(recipe)
        images, boxes, classes = map(np.stack, zip(*self._examples(count, self._whole(recipe))))
        return images, {"boxes": boxes, "classes": classes}

    def _whole(self, recipe):
        """A function from what `_open` returns to image, boxes and classes as in evaluation."""

        def load(contents, boxes, classes, crowd, areas):
            image, scale = fit_picture(decode(contents), recipe.image_size)
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

    def _fail(self, count, recipe):
        self.failure = DataError(
            f"max_boxes must be at least {count}, as many objects are in a picture. "
            f"Received: max_boxes={recipe.max_boxes}"
        )
        raise self.failure

    def _report(self, tried, readable, count):
        # A picture with too many objects looks like one that cannot be read.
        if self.failure is not None:
            raise self.failure
        return super()._report(tried, readable, count)


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


class TfdsBoxes(TfdsRows, Boxes):
    """A data set of TensorFlow Datasets with the features "image" and "objects", such as "coco/2017" and "voc/2007".

    Objects have "bbox" and "label", and may have "is_crowd" or "is_difficult", and "area".

    Args:
        name: As `tfds.builder` takes it.
        data_dir: Folder of prepared data sets; `None` for the usual one.
        validation_share: Float from 0 to 1, the share to hold out where there is no split for validation.
        max_unreadable: Largest share of all pictures that may be unreadable.
        shuffle_buffer: How many encoded pictures are kept in memory to take the next one from.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks what is needed.
    """

    def __init__(self, name, data_dir=None, validation_share=0.1, max_unreadable=0.01, shuffle_buffer=2_000):
        import tensorflow_datasets as tfds

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
        super().__init__(*sizes, tuple(objects["label"].names), max_unreadable)

    def _batched(self, rows, batch_size):
        # Pictures differ in their number of objects: those with the label -1 are none.
        padding = tf.nest.map_structure(lambda spec: None, rows.element_spec)
        padding["objects"]["label"] = tf.constant(-1, tf.int64)
        return rows.padded_batch(batch_size, padding_values=padding)

    def _open(self, rows, key):
        row = self._row(rows, key)
        objects = tf.nest.map_structure(lambda x: tf.boolean_mask(x, row["objects"]["label"] >= 0), row["objects"])
        height, width = tf.unstack(tf.cast(sides_of(row["image"]), tf.float32))
        top, left, bottom, right = tf.unstack(tf.clip_by_value(objects["bbox"], 0, 1), axis=-1)
        boxes = tf.stack([left * width, top * height, right * width, bottom * height], axis=-1)
        classes = tf.cast(objects["label"], tf.int32)
        crowd = objects.get(self._crowd, tf.zeros_like(classes, tf.bool))
        areas = tf.cast(objects.get("area", areas_of(boxes)), tf.float32)
        kept = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=-1)
        columns = (boxes, classes, crowd, areas)
        return row["image"], *(tf.boolean_mask(column, kept) for column in columns)


def open_boxes(recipe):
    """Opens the pictures with boxes that a recipe names.

    Args:
        recipe: Its `data` is "tfds:NAME" for TensorFlow Datasets, or a folder in the layout of Pascal VOC or COCO. Has
            also `validation_share`, `max_unreadable` and `seed`.

    Returns:
        `TfdsBoxes`, `VocFolder` or `CocoFolder`.

    Raises:
        DataError: If there are no such data, or they are not usable.
    """
    common = {"validation_share": recipe.validation_share, "max_unreadable": recipe.max_unreadable}
    if recipe.data:
        path = Path(recipe.data)
        if recipe.data.startswith("tfds:"):
            return TfdsBoxes(recipe.data.removeprefix("tfds:"), **common)
        if any((path / "annotations").glob(f"{COCO_PREFIX}*.json")):
            return CocoFolder(path, seed=recipe.seed, **common)
        if (path / "Annotations").is_dir() or (path / "JPEGImages").is_dir():
            return VocFolder(path, seed=recipe.seed, **common)
    raise DataError(
        "data must be tfds:NAME, a folder in the layout of Pascal VOC (Annotations, JPEGImages) or one in that of COCO "
        f"(annotations/{COCO_PREFIX}train*.json). Received: data={recipe.data}"
    )
