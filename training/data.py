"""Pictures from where they are, folders or TensorFlow Datasets, to batches: the input pipelines, with tf.data.

A batch of training is a function of its number and the seed alone: a run goes on anywhere as if it had never stopped.
"""

import contextlib
import hashlib
import logging
import os
import threading
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_cnv2.preprocessing import SUFFIXES, decode, to_square
from training import augment

Dataset = tf.data.Dataset
logger = logging.getLogger(__name__)

# Where validation pictures are looked for, in a folder and among the splits of TensorFlow Datasets.
VALIDATION_NAMES = ("val", "validation", "valid", "test")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# How many names a message quotes.
QUOTED = 5


class DataError(ValueError):
    """Data that cannot be trained on."""


class Pictures:
    """What `Folder` and `Tfds` have in common: a source of data as `training.loop` describes it.

    A picture that cannot be read is named in the log and left out; in training another one takes its place.

    Args:
        size: Number of training images.
        validation_size: Number of validation images.
        class_names: Tuple of strings, or `None` for pictures without labels.
        max_unreadable: Largest share of all pictures that may be unreadable.

    Attributes:
        failure: The `DataError` that ended a pipeline, or `None`.
    """

    channels = 3

    def __init__(self, size, validation_size, class_names, max_unreadable):
        if keras.backend.backend() != "tensorflow":
            raise DataError(
                "Folders and TensorFlow Datasets need Keras's TensorFlow backend; on others train on arrays, in an "
                f".npz file. Received: the backend {keras.backend.backend()}"
            )
        self.size = size
        self.validation_size = validation_size
        self.class_names = class_names
        self.max_unreadable = max_unreadable
        self.failure = None
        self._unreadable = set()
        self._lock = threading.Lock()

    # What a subclass has. Its `rows` are tensors that stand for the pictures of a batch.

    def _epoch_rows(self, recipe, epoch):
        """The rows of the training batches of an epoch, in its order: a `Dataset`, of a scalar tensor."""
        raise NotImplementedError

    def _validation_rows(self, batch_size):
        """All validation rows once: a `Dataset`."""
        raise NotImplementedError

    def _example_rows(self, batch_size):
        """Rows that are always the same, of validation pictures if there are any: a `Dataset`."""
        raise NotImplementedError

    def _open(self, rows, key):
        """Encoded picture and label of one row; for keys beyond the rows, those of pictures to take their place."""
        raise NotImplementedError

    def _names(self, rows, keys):
        """What a person knows these pictures by: a string tensor."""
        raise NotImplementedError

    def training(self, recipe, first_batch=0, augmentation=None):
        """All batches from one on, without end: random resized crops, in a new order each epoch.

        Args:
            recipe: The `training.recipes.Recipe`.
            first_batch: Number of the first batch. None of those before is decoded.
            augmentation: Optional `training.augment.Augmentation`.

        Returns:
            A `Dataset` of float32 images `(step_batch, image_size, image_size, 3)` in 0..255; with an augmentation, of
            such images and float32 targets `(step_batch, classes)`.

        Raises:
            DataError: If there is an augmentation, but no labels.
        """
        if augmentation is not None and self.class_names is None:
            raise DataError("Pictures without labels train without augmentation. Received: labelled=False")

        def load_batch(number, rows):
            def load(key):
                contents, label = self._open(rows, key)
                draws = augment.Draws(recipe.seed, number, key)
                return random_crop(contents, recipe.image_size, recipe.crop_area, recipe.flip, draws), label

            def change(key, image, label):
                draws = augment.Draws(recipe.seed, number, key, 0)
                return key, tf.ensure_shape(augmentation.image(image, draws), image.shape), label

            if augmentation is None:
                images, _ = self._load(rows, load, recipe.step_batch)
                return images
            images, labels = self._load(rows, load, recipe.step_batch, change)
            return augmentation.batch(images, labels, augment.Draws(recipe.seed, number))

        steps = recipe.steps_per_epoch(self.size)

        def of_epoch(epoch):
            batches = self._epoch_rows(recipe, epoch).take(steps).enumerate(epoch * steps)
            return batches.skip(tf.maximum(first_batch - epoch * steps, 0))

        batches = Dataset.range(first_batch // steps, np.iinfo("int64").max).flat_map(of_epoch)
        # Two at a time, so that no core is idle when a batch is nearly done.
        return batches.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    def validation(self, recipe, batch_size):
        """Every validation image once, as in evaluation, with its label.

        Args:
            recipe: The `training.recipes.Recipe`.
            batch_size: Int; the last batch is as small as it comes.

        Returns:
            A `Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255 and one-hot float32 labels
            `(N, classes)`; `None` if there are no validation images, or no labels.
        """
        if not self.validation_size or self.class_names is None:
            return None
        images = self._squares(self._validation_rows(batch_size), recipe).batch(batch_size)
        return images.map(lambda image, label: (image, tf.one_hot(label, len(self.class_names)))).prefetch(1)

    def examples(self, recipe, count):
        """Always the same images, from validation if there is any.

        Args:
            recipe: The `training.recipes.Recipe`.
            count: Int.

        Returns:
            A float32 array `(count, image_size, image_size, 3)` in 0..255.

        Raises:
            DataError: If there are fewer.
        """
        images = self._squares(self._example_rows(count), recipe).map(lambda image, label: image)
        with self.clear_errors():
            images = [*images.take(count).as_numpy_iterator()]
        if len(images) < count:
            raise DataError(f"There are fewer than {count} pictures that can be read. Received: {len(images)}")
        return np.stack(images)

    @contextlib.contextmanager
    def clear_errors(self):
        """Turns TensorFlow's error about a pipeline that ended into the `DataError` that ended it."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.failure is None:
                raise
            raise self.failure from error

    @property
    def _allowed(self):
        return int(self.max_unreadable * (self.size + self.validation_size))

    def _squares(self, batches, recipe):
        """Images as in evaluation and labels, one by one."""

        def load_batch(rows):
            def load(key):
                contents, label = self._open(rows, key)
                return to_square(decode(contents), recipe.image_size, recipe.resize), label

            return self._load(rows, load)

        return batches.map(load_batch, num_parallel_calls=2, deterministic=True).unbatch()

    def _load(self, rows, load, count=None, change=None):
        """Loads a batch in parallel, without the pictures that cannot be read.

        Args:
            rows: The batch's rows.
            load: From the number of a row to image and label; it raises an error if the picture cannot be read.
            count: How many pictures there must be, with others in the place of those that cannot be read. `None`: as
                many as can be read.
            change: Optional function from number, image and label to the same, which may fail for no picture.

        Returns:
            Images and labels in order.
        """
        length = tf.shape(tf.nest.flatten(rows)[0], out_type=tf.int64)[0]
        tries = length if count is None else length + self._allowed + 1

        def load_one(key):
            return (key, *load(key))

        keys = Dataset.range(tries)
        loaded = keys.take(length).map(load_one, num_parallel_calls=CORES, deterministic=True)
        loaded = loaded.concatenate(keys.skip(length).map(load_one)).ignore_errors().take(length)
        if change:
            loaded = loaded.map(change, num_parallel_calls=CORES, deterministic=True)
        batch = loaded.batch(length)
        nothing = tf.nest.map_structure(lambda spec: tf.zeros((0, *spec.shape[1:]), spec.dtype), batch.element_spec)
        keys, images, labels = batch.concatenate(Dataset.from_tensors(nothing)).take(1).get_single_element()

        found = tf.size(keys, tf.int64)
        tried = tf.range(tf.where(found == length, tf.reduce_max(keys) + 1, tries))
        reported = tf.cond(
            found < tf.size(tried, tf.int64),
            lambda: tf.numpy_function(self._report, [self._names(rows, tried), keys, count or 0], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([reported]):
            return tf.ensure_shape(images, (count, *images.shape[1:])), tf.ensure_shape(labels, (count,))

    def _report(self, tried, readable, count):
        """Logs the pictures that turned out unreadable. Returns how many these are.

        Args:
            tried: Names of all that were tried, bytes.
            readable: Numbers of those that were read.
            count: How many had to be read.

        Raises:
            DataError: If these are too many by now.
        """
        with self._lock:
            for name in map(os.fsdecode, np.delete(tried, readable)):
                if name not in self._unreadable:
                    self._unreadable.add(name)
                    logger.warning("Left out, as it cannot be read: %s", name)
            if len(self._unreadable) > self._allowed or len(readable) < count:
                self.failure = DataError(
                    f"{len(self._unreadable)} pictures of {self.size + self.validation_size} cannot be read: "
                    f"{_quote(sorted(self._unreadable))}. Mend or remove them, or raise max_unreadable. "
                    f"Received: max_unreadable={self.max_unreadable:g}"
                )
                raise self.failure
            return np.int64(len(self._unreadable))


class Folder(Pictures):
    """Pictures in folders.

    Labelled, a class is a folder: PATH/train/CLASS/..., with validation pictures in PATH/val, /validation, /valid or
    /test, the first that is there; or PATH/CLASS/.... Where there is no validation folder a share of each class is held
    out. Without labels, all pictures below PATH/train, or below PATH where there is no such folder.

    Args:
        path: The folder. Symbolic links are followed, hidden files and folders left out.
        labelled: Bool, whether classes are needed.
        validation_share: Float from 0 to 1, the share to hold out; with 1 there is nothing to train on.
        seed: Int, decides which pictures are held out.
        max_unreadable: Largest share of all pictures that may be unreadable.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If there are no pictures, or a class has none, or validation has a class that training lacks.
    """

    def __init__(self, path, labelled=True, validation_share=0.1, seed=0, max_unreadable=0.01):
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"data must be a folder of pictures. Received: {path}")
        if not 0 <= validation_share <= 1:
            raise DataError(f"validation_share must be from 0 to 1. Received: {validation_share}")
        class_names = None
        if labelled:
            train, validation = _labelled_files(path, validation_share, seed)
            class_names = tuple(train)
            _check_classes(validation if validation_share == 1 else train, validation, path)
        else:
            train, validation = {"": files_below(_training_folder(path))}, {}
            if not train[""]:
                raise DataError(f"There are no pictures ({', '.join(SUFFIXES)}) below this folder. Received: {path}")
        numbers = {name: number for number, name in enumerate(train)}
        pairs = [
            [(file, numbers[name]) for name, files in split.items() for file in files] for split in (train, validation)
        ]
        super().__init__(*map(len, pairs), class_names, max_unreadable)
        files, labels = zip(*pairs[0], *pairs[1])
        with tf.device("cpu"):
            self._files = tf.constant([os.fsencode(file) for file in files])
            self._labels = tf.constant(labels, tf.int32)

    def _epoch_rows(self, recipe, epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(self.size, dtype=tf.int64), (recipe.seed, epoch))
        return Dataset.from_tensor_slices(order).batch(recipe.step_batch)

    def _validation_rows(self, batch_size):
        return Dataset.range(self.size, self.size + self.validation_size).batch(batch_size)

    def _example_rows(self, batch_size):
        first, count = (self.size, self.validation_size) if self.validation_size else (0, self.size)
        order = first + np.random.default_rng(0).permutation(count)
        return Dataset.from_tensor_slices(order).batch(batch_size)

    def _indices(self, rows, keys):
        length = tf.size(rows, tf.int64)
        following = (rows[0] + 1 + keys - length) % max(self.size, 1)
        return tf.where(keys < length, tf.gather(rows, tf.minimum(keys, length - 1)), following)

    def _open(self, rows, key):
        index = self._indices(rows, key)
        return tf.io.read_file(self._files[index]), self._labels[index]

    def _names(self, rows, keys):
        return tf.gather(self._files, self._indices(rows, keys))


def _training_folder(path):
    return path / "train" if (path / "train").is_dir() else path


def _labelled_files(path, validation_share, seed):
    """The training and the validation files: two dicts from class names to lists of paths."""
    train = _classes(_training_folder(path))
    if (path / "train").is_dir():
        for folder in (path / name for name in VALIDATION_NAMES):
            if folder.is_dir():
                validation = _classes(folder)
                if not any(validation.values()):
                    raise DataError(f"Validation needs pictures in folders of classes, as training. Received: {folder}")
                return train, validation
    return _hold_out(train, path, validation_share, seed)


def _classes(folder):
    return {entry.name: files_below(entry.path) for entry in _entries(folder) if entry.is_dir()}


def _entries(folder):
    """What is in a folder, in the same order on every machine, but for what is hidden."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def files_below(folder, above=()):
    """The paths of all pictures below a folder, in order."""
    own = os.path.realpath(folder)
    if own in above:  # a link that leads back
        return []
    files = []
    for entry in _entries(folder):
        if entry.is_dir():
            files += files_below(entry.path, (*above, own))
        elif entry.name.lower().endswith(SUFFIXES):
            files.append(entry.path)
    return files


def _hold_out(classes, path, share, seed):
    """Splits the files of each class in two, by a hash of their names: always alike, also when others are added."""

    def rank(file):
        return hashlib.sha256(
            f"{seed}/{Path(file).relative_to(path).as_posix()}".encode(errors="surrogateescape")
        ).digest()

    train, held_out = {}, {}
    for name, files in classes.items():
        # Of both at least one, but for shares that say otherwise.
        count = round(share * len(files)) if share in (0, 1) else min(max(round(share * len(files)), 1), len(files) - 1)
        chosen = {*sorted(files, key=rank)[:count]}
        train[name] = [file for file in files if file not in chosen]
        if chosen:
            held_out[name] = [file for file in files if file in chosen]
    return train, held_out


def _check_classes(train, validation, path):
    if not any(train.values()):
        loose = "; labelled=False takes pictures without" if files_below(_training_folder(path)) else ""
        raise DataError(f"There are no pictures ({', '.join(SUFFIXES)}) in folders of classes{loose}. Received: {path}")
    empty = [name for name, files in train.items() if not files]
    if empty:
        raise DataError(f"There are no pictures in the folders of these classes: {_quote(empty)}. Received: {path}")
    if len(train) < 2:
        raise DataError(f"There must be folders of two classes or more: {_quote([*train])}. Received: {path}")
    unknown = [name for name, files in validation.items() if files and name not in train]
    if unknown:
        raise DataError(f"Validation has classes that training lacks: {_quote(unknown)}. Received: {path}")
    missing = [name for name in train if not validation.get(name)]
    if validation and missing:
        logger.warning("There are no validation pictures of these classes: %s", _quote(missing))


def _quote(names):
    rest = len(names) - QUOTED
    return ", ".join(names[:QUOTED]) + (f" and {rest} more" if rest > 0 else "")


class Tfds(Pictures):
    """A data set of TensorFlow Datasets with a feature "image", and "label" for its classes.

    Its "train" split, with a validation or else its test split; where there is neither, a share is held out. Prepared,
    and downloaded, if it is not. Pictures stay encoded until they are cropped.

    Args:
        name: As `tfds.builder` takes it: "cifar10", "name/config:version".
        data_dir: Folder of prepared data sets; `None` for the usual one.
        labelled: Bool, whether classes are needed.
        validation_share: Float in `[0, 1)`, the share to hold out.
        max_unreadable: Largest share of all pictures that may be unreadable.
        shuffle_buffer: How many encoded pictures are kept in memory to take the next one from.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks what is needed.
    """

    def __init__(
        self,
        name,
        data_dir=None,
        labelled=True,
        validation_share=0.1,
        max_unreadable=0.01,
        shuffle_buffer=10_000,
    ):
        import tensorflow_datasets as tfds

        if not 0 <= validation_share < 1:
            raise DataError(f"validation_share must be from 0 to below 1. Received: {validation_share}")
        builder = _builder(name, data_dir)
        features = builder.info.features
        known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image = known.get("image")
        if not isinstance(image, tfds.features.Image) or image.np_dtype not in (np.uint8, np.uint16):
            raise DataError(f"{name} has no pictures by the name of image. Received: a data set of {features}")
        if labelled and not isinstance(known.get("label"), tfds.features.ClassLabel):
            raise DataError(f"{name} has no classes by the name of label. Received: a data set of {features}")
        _prepare(builder, name)
        splits = builder.info.splits
        if "train" not in splits:
            raise DataError(f"{name} has no split train. Received: a data set of {sorted(splits)}")
        train, validation = "train", next((split for split in VALIDATION_NAMES if split in splits), None)
        if validation is None and validation_share:
            held_out = round(validation_share * splits["train"].num_examples)
            train, validation = f"train[{held_out}:]", f"train[:{held_out}]"
        wanted = {"image", "label"} if labelled else {"image"}
        decoders = tfds.decode.PartialDecoding(wanted, {"image": tfds.decode.SkipDecoding()})
        read = tfds.ReadConfig(try_autocache=False, add_tfds_id=True)

        def rows(split):
            return builder.as_dataset(split=split, decoders=decoders, read_config=read, shuffle_files=False)

        super().__init__(
            splits[train].num_examples,
            splits[validation].num_examples if validation else 0,
            tuple(features["label"].names) if labelled else None,
            max_unreadable,
        )
        self._train = rows(train)
        self._validation = rows(validation) if self.validation_size else None
        self._shuffle_buffer = shuffle_buffer

    def _epoch_rows(self, recipe, epoch):
        # `Dataset.shuffle` takes no tensor as seed, the operation under it does; two zeros would mean any seed.
        flat = tf.nest.flatten(self._train.element_spec)
        shuffled = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(self._train),
            buffer_size=self._shuffle_buffer,
            seed=recipe.seed + 1,
            seed2=epoch,
            output_types=[spec.dtype for spec in flat],
            output_shapes=[spec.shape for spec in flat],
            reshuffle_each_iteration=False,
        )
        shuffled = tf.data.experimental.from_variant(shuffled, self._train.element_spec)
        return shuffled.batch(recipe.step_batch)

    def _validation_rows(self, batch_size):
        return self._validation.batch(batch_size)

    def _example_rows(self, batch_size):
        return (self._validation or self._train).batch(batch_size)

    def _open(self, rows, key):
        row = tf.nest.map_structure(lambda column: column[key % tf.shape(column, tf.int64)[0]], rows)
        return row["image"], tf.cast(row.get("label", -1), tf.int32)

    def _names(self, rows, keys):
        names = rows["tfds_id"]
        return tf.gather(names, keys % tf.size(names, tf.int64))


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # of many kinds
        raise DataError(f"TensorFlow Datasets has no {name}: {_short(error)}. Received: tfds:{name}") from error


def _prepare(builder, name):
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            f"{name} is not in {builder.data_path} and cannot be prepared: {_short(error)}. Received: tfds:{name}"
        ) from error


def _short(error):
    return " ".join(str(error).split())[:500].rstrip(".") or type(error).__name__


def random_crop(contents, size, area, flip, draws):
    """Decodes a random part of a picture and makes a square image of it, in graphs.

    Of a JPEG only that part is decoded; if it is large, at a half, a quarter or an eighth of its size, in whole pixels
    of that, as long as they are at least twice as many along each side as the image has.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, BMP, WebP or GIF.
        size: Int, the side of the image in pixels.
        area: Pair of floats, smallest and largest share of the picture.
        flip: Bool, whether half of the images are mirrored.
        draws: `training.augment.Draws` of the image.

    Returns:
        A float32 tensor `(size, size, 3)`, values in 0..255. Bicubic, antialiased.
    """

    def window(height, width):
        return tf.stack(augment.sample_crop(height, width, area, draws))

    def of_jpeg():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(contents))
        box = window(height, width)

        def at(reduction):
            return tf.image.decode_and_crop_jpeg(
                contents, box // reduction, channels=3, ratio=reduction, dct_method="INTEGER_ACCURATE"
            )

        spare = tf.reduce_min(box[2:]) // (2 * size)
        reductions = tf.reduce_sum(tf.cast(spare >= [2, 4, 8], tf.int32))
        return tf.switch_case(reductions, [lambda: at(1), lambda: at(2), lambda: at(4), lambda: at(8)])

    def of_others():
        pixels = decode(contents)
        top, left, height, width = tf.unstack(window(*tf.unstack(tf.shape(pixels)[:2])))
        return pixels[top : top + height, left : left + width]

    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    pixels = tf.cond(is_jpeg, of_jpeg, of_others)
    mirrored = keras.random.uniform((), seed=draws) < 0.5 if flip else tf.constant(False)
    return resize(pixels, size, mirrored)


def resize(pixels, size, mirrored):
    """Resizes pixels `(height, width, 3)` to `(size, size, 3)`, bicubic and antialiased, and mirrors them or not.

    In two passes over the first axis: TensorFlow's operation gives the same, and takes four times as long for both.
    """
    height, width = tf.unstack(tf.shape(pixels)[:2])
    rows = tf.reshape(_resize_rows(tf.reshape(pixels, (height, width * 3)), size), (size, width, 3))
    columns = _resize_rows(tf.reshape(tf.transpose(rows, (1, 0, 2)), (width, size * 3)), size)
    columns = tf.cond(mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    return tf.clip_by_value(tf.transpose(tf.reshape(columns, (size, size, 3)), (1, 0, 2)), 0, 255)


def _resize_rows(rows, count):
    """Resizes `(n, m)` to `(count, m)`."""
    resized = tf.raw_ops.ScaleAndTranslate(
        images=rows[None, None],  # each row a pixel of m channels
        size=(1, count),
        scale=tf.stack([1.0, count / tf.cast(tf.shape(rows)[0], tf.float32)]),
        translation=(0.0, 0.0),
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.reshape(resized, (count, -1))
