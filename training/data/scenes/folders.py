"""Data source for folders of pictures and label PNGs."""

import os

import tensorflow as tf

from keras_cnv2.images.folders import LeftOut, pictures_below

from ...errors import DataError
from ..errors import quote, say_left_out
from ..file_rows import FileRows, checked_folder, constant_paths
from ..splits import VALIDATION_NAMES, check_share, hold_out_files
from .class_names import counted_names, given_names, names_beside
from .task import Scenes

TRAINING_NAMES = ("train", "training")
LABEL_FOLDERS = ("annotations", "labels", "masks")

# Folders of pictures and of their labels for a split; the first pair that exists is used.
LAYOUTS = (
    ("{split}", "{split}annot"),  # CamVid
    *(("images/{split}", f"{labels}/{{split}}") for labels in LABEL_FOLDERS),  # ADE20K
    *(("{split}/images", f"{{split}}/{labels}") for labels in LABEL_FOLDERS),
)


class SceneFolder(Scenes):
    """A folder of pictures, and PNGs of the same names with the class number of each pixel.

    The layout is that of CamVid (PATH/train, PATH/trainannot), that of ADE20K (PATH/images/training,
    PATH/annotations/training), or PATH/train/images and PATH/train/labels. Folders of labels may also be called
    annotations or masks. All of these may have subfolders. Without a validation split, a share of the pictures is held
    out; likewise without any splits (PATH/images, PATH/labels).

    Args:
        path: The folder. Symbolic links are followed; hidden files and folders are ignored.
        classes: Class names, a file with one name per line, or the number of classes. `None`: PATH/classes.txt, else
            ADE20K's objectInfo150.txt, else counted from the greatest number in the labels.
        ignore_label: Int, the label of pixels that are ignored.
        reduce_zero_label: Bool, whether classes are numbered from 1 on in the files, and 0 is ignored (ADE20K).
        validation: Name of the validation split, e.g. "test". `None`: the first of val, validation, valid and test
            that exists.
        validation_share: Float from 0 to 1, the share to hold out; with 1, no training pictures remain.
        seed: Int, decides which pictures are held out.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        FileNotFoundError: If the folder does not exist.
        DataError: If the folder has another layout, no pictures, or pictures without labels.
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
        **options,
    ):
        path = checked_folder(path, "pictures and labels")
        check_share(validation_share)
        splits = _splits(path, validation, validation_share, seed)
        labels = constant_paths(labels for split in splits for _, labels in split)
        names = given_names(classes) or names_beside(path)
        if names is None:
            contents = tf.data.Dataset.from_tensor_slices(labels).map(tf.io.read_file)
            names = counted_names(contents, ignore_label, reduce_zero_label, path)

        def open_file(file, number):
            return tf.io.read_file(file), tf.io.read_file(labels[number]), labels[number]

        pictures = ([picture for picture, _ in split] for split in splits)
        rows = FileRows(*pictures, open_file, labels)
        super().__init__(rows, names, ignore_label, reduce_zero_label, **options)


def _splits(path, validation, share, seed):
    """Returns pairs of picture and label files for training and for validation: two lists of tuples."""
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
    """Returns the pairs of the first split that exists; `None` if there is none."""
    for split in names:
        for layout in LAYOUTS:
            pairs = _pairs(*(path / folder.format(split=split) for folder in layout))
            if pairs is not None:
                return pairs
    return None


def _pairs(pictures, labels):
    """Returns pairs of pictures and label files of the same name, in order; `None` if a folder is missing."""
    if labels is None or not (pictures.is_dir() and labels.is_dir()):
        return None
    left_out = LeftOut()
    files = {_stem(file, pictures): file for file in pictures_below(pictures, left_out)}
    maps = {_stem(file, labels): file for file in pictures_below(labels, left_out, (".png",))}
    say_left_out(pictures.parent, left_out)
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
