"""Pictures with a class for each pixel, as sources of training: folders and TensorFlow Datasets."""

import logging
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cnv2.preprocessing import decode
from training.data import CORES, VALIDATION_NAMES, DataError, Dataset, Loader, quote
from training.folders import files_below
from training.recipes import RecipeError
from training.rows import FileRows
from training.segmentation.augment import fitted_example, random_example
from training.segmentation.labels import decode_labels, holds_numbers
from training.shares import WHOLE
from training.splits import hold_out_files
from training.tfds import TfdsRows, check_image, features_of, open_builder

logger = logging.getLogger(__name__)

TRAINING_NAMES = ("train", "training")
LABEL_FOLDERS = ("annotations", "labels", "masks")

# Where folders of pictures and of their labels lie, for a split; the first pair that is there is taken.
LAYOUTS = (
    ("{split}", "{split}annot"),  # CamVid
    *(("images/{split}", f"{labels}/{{split}}") for labels in LABEL_FOLDERS),  # ADE20K
    *(("{split}/images", f"{{split}}/{labels}") for labels in LABEL_FOLDERS),
)

# Names of classes beside the pictures: one a line, or ADE20K's table with the names in its last column.
CLASSES_FILE = "classes.txt"
ADE20K_FILE = "objectInfo150.txt"

# What TensorFlow Datasets call labels of pixels.
LABEL_FEATURES = ("annotation", "segmentation_mask", "segmentation_label", "mask")


class Scenes(Loader):
    """A source of data as `training.loop` describes it. Of each row it opens the encoded picture, the encoded labels
    and a name.

    Labels that cannot be right end the pipeline at once with a `DataError` that names them: numbers of no class,
    another size than the picture's, colours in place of numbers. Damaged files are left out as all sources do.

    Args:
        size, validation_size, class_names, max_unreadable: As `training.data.Loader`.
        ignore_label: Int, the number of pixels that do not count.
        reduce_zero_label: Bool, whether classes are numbered from 1 on in the files, and 0 is ignored.
    """

    def __init__(self, size, validation_size, class_names, max_unreadable, ignore_label, reduce_zero_label):
        super().__init__(size, validation_size, class_names, max_unreadable)
        self.ignore_label = ignore_label
        self.reduce_zero_label = reduce_zero_label
        self._wrong = None

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """All batches from one on, without end: random crops, in a new order each pass over the pictures.

        Args:
            recipe: The recipe, see `training.segmentation.augment.random_example`.
            first_batch: Number of the first batch. None of those before is decoded.
            augmentation: Not used: the recipe says it all.
            share: `training.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `tf.data.Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255 and int32 labels
            `(N, image_size, image_size)`, N the share's part of `recipe.step_batch`.
        """

        def load(picture, labels, name, draws):
            pixels, classes = self._decode(picture, labels, name)
            return random_example(pixels, classes, recipe, self.ignore_label, draws)

        return self._training_batches(recipe, first_batch, share, load)

    def validation(self, recipe, batch_size, share=WHOLE):
        """Every validation picture once, the whole of it fitted into a square.

        Args:
            recipe: The recipe, of which only `image_size` counts.
            batch_size: Int. All batches are whole, for the sake of static shapes; empty places are black, ignored and
                have the weight 0.
            share: `training.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `tf.data.Dataset` of images and labels as in training, and float32 weights `(N,)`; `None` if there are
            no validation pictures.
        """
        if not self.validation_size:
            return None

        def without_empty(images, labels, weights):
            return images, tf.where(weights[:, None, None] > 0, labels, self.ignore_label), weights

        return self._validation_batches(batch_size, share, self._fitted(recipe)).map(without_empty)

    def examples(self, recipe, count):
        """Always the same pictures, from validation if there is any, fitted into squares.

        Args:
            recipe: The recipe, of which only `image_size` counts.
            count: Int.

        Returns:
            Float32 images `(count, image_size, image_size, 3)` in 0..255 and int32 labels `(count, image_size,
            image_size)`.

        Raises:
            DataError: If there are fewer.
        """
        images, labels = zip(*self._examples(count, self._fitted(recipe)))
        return np.stack(images), np.stack(labels)

    def whole(self, share=WHOLE, mixed=False):
        """Every validation picture once, in its own size: what is evaluated in the end.

        Args:
            share: `training.shares.Share`: a worker gets every so many pictures, from that of its number on.
            mixed: Bool, whether they come in the order of `examples`: the first few of a film look all the same.

        Returns:
            An iterator of tuples: pixels, uint8 `(height, width, 3)`; int32 labels `(height, width)`; a name.

        Raises:
            DataError: Where labels cannot be right, or too many pictures cannot be read.
        """

        def load(picture, labels, name):
            # As strings, since a batch of tensors has one shape.
            return (*map(tf.io.serialize_tensor, self._decode(picture, labels, name)), name)

        def load_batch(rows):
            return self._load(rows, lambda key: load(*self._open(rows, key)))

        def parse(pixels, labels, name):
            return tf.io.parse_tensor(pixels, tf.uint8), tf.io.parse_tensor(labels, tf.int32), name

        rows = (self._example_rows if mixed else self._validation_rows)(1).shard(share.workers, share.worker)
        batches = rows.map(load_batch, num_parallel_calls=CORES, deterministic=True)
        with self.clear_errors():
            for pixels, labels, name in batches.unbatch().map(parse).prefetch(1).as_numpy_iterator():
                yield pixels, labels, os.fsdecode(name)

    def _fitted(self, recipe):
        def load(picture, labels, name):
            return fitted_example(*self._decode(picture, labels, name), recipe.image_size, self.ignore_label)

        return load

    def _decode(self, picture, labels, name):
        """Pixels, and for each the number of its class."""
        pixels, numbers = decode(picture), decode_labels(labels)
        first = int(self.reduce_zero_label)
        ignored = numbers == self.ignore_label
        if self.reduce_zero_label:
            ignored |= numbers == 0
        wrong = ~ignored & ((numbers < first) | (numbers >= first + len(self.class_names)))
        size, labels_size = tf.shape(pixels)[:2], tf.shape(numbers)
        are_numbers, fit = holds_numbers(labels), tf.reduce_all(size == labels_size)

        def refuse():
            values = tf.sort(tf.unique(tf.boolean_mask(numbers, wrong))[0])
            return tf.numpy_function(self._refuse, [name, are_numbers, size, labels_size, values], tf.bool)

        right = tf.cond(are_numbers & fit & ~tf.reduce_any(wrong), lambda: True, refuse)
        with tf.control_dependencies([right]):
            return tf.identity(pixels), tf.where(ignored, self.ignore_label, numbers - first)

    def _refuse(self, name, are_numbers, size, labels_size, values):
        """Keeps what is wrong with a picture's labels for `_report`, and raises it."""
        first = int(self.reduce_zero_label)
        if not are_numbers:
            demand, received = "be numbers of classes, a PNG of grey levels or indexed colours", "a PNG of colours"
        elif any(size != labels_size):
            demand = f"have the size of their picture, {size[1]} x {size[0]}"
            received = f"{labels_size[1]} x {labels_size[0]}"
        else:
            demand = f"be from {first} to {first + len(self.class_names) - 1}, or {self.ignore_label} to be ignored"
            received = quote([str(value) for value in values])
        with self._lock:
            self._wrong = DataError(f"Labels must {demand}. Received: {received} in {os.fsdecode(name)}")
        raise self._wrong

    def _report(self, tried, readable, count):
        if self._wrong:
            self.failure = self._wrong
            raise self.failure
        return super()._report(tried, readable, count)


class SceneFolder(FileRows, Scenes):
    """A folder of pictures and of PNGs with the numbers of their pixels' classes, under the same names.

    Laid out as CamVid (PATH/train, PATH/trainannot), as ADE20K (PATH/images/training, PATH/annotations/training), or
    with PATH/train/images and PATH/train/labels; labels may also be called annotations or masks. In these there may be
    folders. Where there is no validation split a share of the pictures is held out; where there are no splits at all
    (PATH/images, PATH/labels), too.

    Args:
        path: The folder. Symbolic links are followed, hidden files and folders left out.
        classes: Names of the classes, a file with them, one a line, or how many there are. `None`: PATH/classes.txt;
            ADE20K's objectInfo150.txt; or as many as the greatest number in the labels says.
        ignore_label: Int, the number of pixels that do not count.
        reduce_zero_label: Bool, whether classes are numbered from 1 on in the files, and 0 is ignored (ADE20K).
        validation: Name of the split for validation, e.g. "test". `None`: val, validation, valid or test, the first
            that is there.
        validation_share: Float from 0 to 1, the share to hold out; with 1 there is nothing to train on.
        seed: Int, decides which pictures are held out.
        max_unreadable: Largest share of all pictures that may be unreadable.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If there are no such folders in it, no pictures, or pictures without labels.
    """

    def __init__(
        self,
        path,
        classes=None,
        ignore_label=255,
        reduce_zero_label=False,
        validation=None,
        validation_share=0.1,
        seed=0,
        max_unreadable=0.01,
    ):
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"data must be a folder of pictures and labels. Received: {path}")
        if not 0 <= validation_share <= 1:
            raise DataError(f"validation_share must be from 0 to 1. Received: {validation_share}")
        splits = _splits(path, validation, validation_share, seed)
        names = _given_names(classes) or _names_beside(path)
        if names is None:
            files = [os.fsencode(labels) for split in splits for _, labels in split]
            contents = Dataset.from_tensor_slices(files).map(tf.io.read_file)
            names = _counted_names(contents, ignore_label, reduce_zero_label, path)
        super().__init__(*map(len, splits), names, max_unreadable, ignore_label, reduce_zero_label)
        self._keep(*([picture for picture, _ in split] for split in splits))
        with tf.device("cpu"):
            self._labels = tf.constant([os.fsencode(labels) for split in splits for _, labels in split])

    def _open(self, rows, key):
        index = self._index(rows, key)
        labels = self._labels[index]
        return tf.io.read_file(self._files[index]), tf.io.read_file(labels), labels


class TfdsScenes(TfdsRows, Scenes):
    """A data set of TensorFlow Datasets with pictures, "image", and PNGs with the numbers of their pixels' classes.

    Those may be called "annotation", "segmentation_mask", "segmentation_label" or "mask". Its "train" split, with a
    validation or else its test split; where there is neither, a share is held out. Prepared, and downloaded, if it is
    not.

    Args:
        name: As `tfds.builder` takes it: "oxford_iiit_pet", "name/config:version".
        data_dir: Folder of prepared data sets; `None` for the usual one.
        classes: As `SceneFolder`. `None`: what the data set says, or as many as the greatest number in the labels
            says.
        ignore_label, reduce_zero_label, validation_share, max_unreadable: As `SceneFolder`.
        shuffle_buffer: How many encoded pictures are kept in memory to take the next one from.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks what is needed.
    """

    def __init__(
        self,
        name,
        data_dir=None,
        classes=None,
        ignore_label=255,
        reduce_zero_label=False,
        validation_share=0.1,
        max_unreadable=0.01,
        shuffle_buffer=2_000,
    ):
        import tensorflow_datasets as tfds

        if name.split("/")[0].split(":")[0] == "scene_parse150":
            raise DataError(
                "scene_parse150 of TensorFlow Datasets has the instances of 100 classes (Places Challenge 2017), not "
                "ADE20K's 150 classes of pixels. Give the folder ADEChallengeData2016. Received: tfds:scene_parse150"
            )
        builder = open_builder(name, data_dir)
        known = features_of(builder)
        check_image(known, name)
        kept = next((key for key in LABEL_FEATURES if isinstance(known.get(key), tfds.features.Image)), None)
        if kept is None:
            raise DataError(f"{name} has no pictures {', '.join(LABEL_FEATURES)}. Received: a data set of {known}")
        self._label_feature = kept
        encoded = tfds.decode.SkipDecoding()
        wanted = {"image": encoded, kept: encoded}
        sizes = self._keep(builder, name, {*wanted}, wanted, validation_share, shuffle_buffer)
        names = _given_names(classes) or _given_names(_own_names(known[kept]))
        if names is None:
            rows = self._read(split=self._training_split).concatenate(self._read(split=self._validation_split))
            names = _counted_names(rows.map(lambda row: row[kept]), ignore_label, reduce_zero_label, name)
        super().__init__(*sizes, names, max_unreadable, ignore_label, reduce_zero_label)

    def _open(self, rows, key):
        row = self._row(rows, key)
        return row["image"], row[self._label_feature], row["tfds_id"]


def open_scenes(recipe, validation=None):
    """Opens the data of a recipe for segmentation.

    Args:
        recipe: The recipe, whose `data` says which: a folder, or "tfds:NAME".
        validation: Optional name of a folder's split for validation, e.g. "test".

    Returns:
        A `SceneFolder` or `TfdsScenes`.

    Raises:
        RecipeError: If the recipe names none.
        ValueError or OSError: If there are no such data, or they are not usable.
    """
    if recipe.data is None:
        raise RecipeError(
            "data must be a folder of pictures and labels, or tfds:NAME; this recipe has none of its own. "
            "Received: data=None"
        )
    fields = ("classes", "ignore_label", "reduce_zero_label", "validation_share", "max_unreadable")
    common = {name: getattr(recipe, name) for name in fields}
    if recipe.data.startswith("tfds:"):
        return TfdsScenes(recipe.data.removeprefix("tfds:"), **common)
    return SceneFolder(recipe.data, validation=validation, seed=recipe.seed, **common)


def _splits(path, validation, share, seed):
    """The pairs of files of training and of validation: two lists of tuples."""
    train = _first_pairs(path, TRAINING_NAMES)
    if train is None:
        train = _pairs(path / "images", next((path / name for name in LABEL_FOLDERS if (path / name).is_dir()), None))
        if train is None:
            raise DataError(
                "data must have folders of pictures and of labels: train and trainannot, images/training and "
                f"annotations/training, train/images and train/labels, or images and labels. Received: {path}"
            )
        held_out = None
    else:
        held_out = _first_pairs(path, (validation,) if validation else VALIDATION_NAMES)
    if held_out is None:
        if validation:
            raise DataError(f"There is no split {validation} with pictures and labels. Received: {path}")
        labels = dict(train)
        parts = hold_out_files([*labels], path, share, seed)
        train, held_out = ([(picture, labels[picture]) for picture in part] for part in parts)
    return train, held_out


def _first_pairs(path, names):
    """The pairs of the first split of these names; `None` if there is none."""
    for split in names:
        for layout in LAYOUTS:
            pairs = _pairs(*(path / folder.format(split=split) for folder in layout))
            if pairs is not None:
                return pairs
    return None


def _pairs(pictures, labels):
    """Pictures with the labels of the same name, in order; `None` if there are no such folders."""
    if labels is None or not (pictures.is_dir() and labels.is_dir()):
        return None
    files = {_stem(file, pictures): file for file in files_below(pictures)}
    maps = {_stem(file, labels): file for file in files_below(labels) if file.lower().endswith(".png")}
    if not files:
        raise DataError(f"There are no pictures below this folder. Received: {pictures}")
    missing = [file for stem, file in files.items() if stem not in maps]
    if missing:
        raise DataError(
            f"{len(missing)} pictures have no PNG of the same name in {labels}: {quote(missing)}. "
            f"Received: {len(files)} pictures, {len(maps)} PNGs"
        )
    return [(file, maps[stem]) for stem, file in files.items()]


def _stem(file, folder):
    return os.path.splitext(os.path.relpath(file, folder))[0]


def _given_names(classes):
    """Names of classes from names, a file with them, a number or `None`."""
    if isinstance(classes, (str, os.PathLike)) and not str(classes).isdecimal():
        lines = Path(classes).read_text(encoding="utf-8").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    elif isinstance(classes, (str, int)):
        classes = range(int(classes))
    names = tuple(map(str, classes or ()))
    if len({*names}) < len(names):
        raise DataError(f"classes must have different names. Received: {quote(sorted(names))}")
    return names or None


def _names_beside(path):
    """The names of classes in a file of the folder, `None` if there is none."""
    if (path / CLASSES_FILE).exists():
        return _given_names(path / CLASSES_FILE)
    if (path / ADE20K_FILE).exists():
        lines = (path / ADE20K_FILE).read_text(encoding="utf-8").splitlines()[1:]
        # The first of several words for a class.
        return _given_names([line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()])
    return None


def _own_names(feature):
    """The names of a feature of TensorFlow Datasets for labels of pixels, if it has any."""
    return getattr(feature, "names", None)


def _counted_names(contents, ignore_label, reduce_zero_label, source):
    """As many classes as the greatest number in all labels says, named by numbers.

    Args:
        contents: `Dataset` of encoded labels.
        ignore_label, reduce_zero_label: As `SceneFolder`.
        source: What they are from, for messages.
    """
    logger.info("Counting the classes in all labels, as there is no list of them: %s", source)

    def greatest(contents):
        numbers = decode_labels(contents)
        # A picture of colours has no numbers of classes; it is refused where it is loaded.
        counts = (numbers != ignore_label) & holds_numbers(contents)
        return tf.reduce_max(tf.where(counts, numbers, -1))

    found = contents.map(greatest, num_parallel_calls=CORES).ignore_errors()
    count = int(found.reduce(np.int32(-1), tf.maximum)) + 1 - int(reduce_zero_label)
    if count < 1:
        raise DataError(f"There are no classes in the labels, only what is ignored. Received: {source}")
    logger.info("%d classes in the labels of %s", count, source)
    return _given_names(count)
