"""Data source for folders of pictures."""

import logging
import os

import tensorflow as tf

from keras_cnv2.images.folders import LeftOut, pictures_below, visible
from keras_cnv2.images.pictures import SUFFIXES

from ...errors import DataError
from ..errors import quote, say_left_out
from ..file_rows import FileRows, checked_folder
from ..splits import VALIDATION_NAMES, check_share, hold_out_files
from .task import Pictures

logger = logging.getLogger(__name__)


class Folder(Pictures):
    """Pictures in folders.

    With labels, each class is a folder: PATH/train/CLASS/... for training, and the same in the first existing folder of
    PATH/val, PATH/validation, PATH/valid and PATH/test for validation; or just PATH/CLASS/.... Without a validation
    folder, a share of each class is held out. Without labels, all pictures below PATH/train are used, or below PATH if
    there is no PATH/train.

    Args:
        path: The folder. Symbolic links are followed; hidden files and folders are ignored.
        labelled: Bool, whether classes are needed.
        validation_share: Float from 0 to 1, the share to hold out; with 1, no training pictures remain.
        train_share: Float above 0 and up to 1, the share of each class's remaining pictures that is trained on.
        seed: Int, decides which pictures are held out.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        FileNotFoundError: If the folder does not exist.
        DataError: If there are no pictures, a class has none, or validation has a class that training lacks.
    """

    def __init__(self, path, labelled=True, validation_share=0.1, train_share=1.0, seed=0, **options):
        path = checked_folder(path, "pictures")
        check_share(validation_share)
        class_names, left_out = None, LeftOut()
        if labelled:
            train, validation = _labelled_files(path, validation_share, seed, left_out)
            class_names = tuple(train)
        else:
            train, validation = {"": pictures_below(_training_folder(path), left_out)}, {}
            if not train[""]:
                raise DataError(f"There are no pictures ({', '.join(SUFFIXES)}) below this folder. Received: {path}")
        say_left_out(path, left_out)
        train = {name: hold_out_files(files, path, 1 - train_share, seed)[0] for name, files in train.items()}
        numbers = {name: number for number, name in enumerate(train)}
        pairs = [
            [(file, numbers[name]) for name, files in split.items() for file in files] for split in (train, validation)
        ]
        with tf.device("cpu"):
            labels = tf.constant([label for split in pairs for _, label in split], tf.int32)
        files = ([file for file, _ in split] for split in pairs)
        rows = FileRows(*files, lambda file, number: (tf.io.read_file(file), labels[number]))
        super().__init__(rows, class_names, **options)


def _training_folder(path):
    return path / "train" if (path / "train").is_dir() else path


def _labelled_files(path, validation_share, seed, left_out):
    """Returns the training and the validation files, checked: two dicts from class names to lists of paths."""
    train, validation = _classes(_training_folder(path), left_out), _validation_classes(path, left_out)
    if validation:
        _check_classes(train, validation, path)
        return train, validation
    train, validation = _hold_out(train, path, validation_share, seed)
    # If all pictures are held out, the training folders are empty on purpose.
    _check_classes(validation if validation_share == 1 else train, validation, path)
    return train, validation


def _validation_classes(path, left_out):
    """Returns a dict from class names to validation files, empty if there is no validation folder."""
    folders = (path / name for name in VALIDATION_NAMES if (path / "train").is_dir())
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return {}
    classes = _classes(folder, left_out)
    if not any(classes.values()):
        raise DataError(f"Validation needs pictures in folders of classes, as training. Received: {folder}")
    return classes


def _classes(folder, left_out):
    folders = [entry for entry in visible(folder) if os.path.isdir(entry.path)]  # false for circular links
    return {entry.name: pictures_below(entry.path, left_out) for entry in folders}


def _hold_out(classes, path, share, seed):
    """Holds out a share of the files of each class. Returns two dicts, for training and held out."""
    train, held_out = {}, {}
    for name, files in classes.items():
        train[name], chosen = hold_out_files(files, path, share, seed)
        if chosen:
            held_out[name] = chosen
    return train, held_out


def _check_classes(train, validation, path):
    if not any(train.values()):
        loose = "; labelled=False takes pictures without" if pictures_below(_training_folder(path), LeftOut()) else ""
        raise DataError(f"There are no pictures ({', '.join(SUFFIXES)}) in folders of classes{loose}. Received: {path}")
    empty = [name for name, files in train.items() if not files]
    if empty:
        raise DataError(f"There are no pictures in the folders of these classes: {quote(empty)}. Received: {path}")
    if len(train) < 2:
        raise DataError(f"There must be folders of two classes or more: {quote([*train])}. Received: {path}")
    unknown = [name for name, files in validation.items() if files and name not in train]
    if unknown:
        raise DataError(f"Validation has classes that training lacks: {quote(unknown)}. Received: {path}")
    missing = [name for name in train if not validation.get(name)]
    if validation and missing:
        logger.warning("There are no validation pictures of these classes: %s", quote(missing))
