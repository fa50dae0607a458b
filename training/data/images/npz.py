"""Images in an .npz file. Imports no TensorFlow."""

import logging
import os

import numpy as np

from keras_cnv2.images.classes import numbered

from ...errors import DataError
from ..errors import check_names
from .arrays import Arrays, Split
from .values import as_pixels

logger = logging.getLogger(__name__)

# Keys of an .npz file: a pair of images and labels for each split. It may also hold class_names.
NPZ_KEYS = {split: (f"{split}_images", f"{split}_labels") for split in ("train", "test")}
READ = {"class_names"}.union(*NPZ_KEYS.values())

# An array of more than LARGE bytes is refused if its compression ratio exceeds MAX_RATIO, which no images reach.
LARGE, MAX_RATIO = 2**28, 200

# Maximum number of classes without class_names (ImageNet-21k has 21,841): one wrong label must not create millions.
MAX_UNNAMED = 2**15


def from_npz(path, image_size, labelled=True, scale=None, mean=None, deviation=None):
    """Reads `Arrays` from an .npz file.

    Args:
        path: Path of a file with train_images `(N, H, W, channels)` of uint8 or any other numbers, train_labels `(N,)`,
            and optionally test_images with test_labels, and class_names.
        image_size: Int, the height and width that the images must have.
        labelled: Bool, whether classes are needed: there must be two or more.
        scale, mean, deviation: How values are converted to 0..255, see `training.data.images.values.as_pixels`.

    Raises:
        ValueError: If the file is damaged, an array is missing, or shapes or types do not fit.
        OSError: If the file cannot be read.
    """
    arrays = _read(path)
    _check_keys(path, arrays)
    train, test = (_split_of(path, arrays, keys, image_size) for keys in NPZ_KEYS.values())
    if test and test.images.shape[-1] != train.images.shape[-1]:
        raise DataError(
            "test_images must have the channels of train_images. "
            f"Received: {path} with {test.images.shape[-1]} and {train.images.shape[-1]}"
        )
    if test and (test.images.dtype == np.uint8) != (train.images.dtype == np.uint8):  # e.g. ranges 0..255 and 0..1
        raise DataError(
            "test_images must have the same kind of numbers as train_images, both uint8 or neither. "
            f"Received: {path} with {test.images.dtype} and {train.images.dtype}"
        )
    names = _names_of(path, arrays.get("class_names"), [split.labels for split in (train, test) if split])
    if labelled and train.labels.min() == train.labels.max():
        raise DataError(
            f"train_labels must be of two classes or more. Received: {path} with the single label {train.labels[0]}"
        )
    *images, taken = as_pixels(path, train.images, test and test.images, scale, mean, deviation)
    splits = (split and Split(of, split.labels.astype("int32")) for split, of in zip((train, test), images))
    return Arrays(*splits, names, taken)


def _read(path):
    """Returns a file's arrays by name, `None` for other keys than `READ`. Raises a `DataError` if it is damaged."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would block
        raise DataError(f"This is no file. Received: {path}")
    with open(path, "rb") as opened:
        try:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array, as in an .npy file")
            _check_sizes(file.zip.infolist())
            # `np.asarray`, because numpy returns members that are not arrays as bytes.
            return {key: np.asarray(file[key]) if key in READ else None for key in file}
        except Exception as error:  # zipfile, zlib and numpy raise many kinds
            reason = str(error) or type(error).__name__
            raise DataError(f"This is no .npz file, or a damaged one: {reason}. Received: {path}") from error


def _check_sizes(members):
    """Raises a `ValueError` for decompression bombs: few bytes that would fill the memory."""
    for member in members:
        if member.file_size > max(LARGE, MAX_RATIO * member.compress_size):
            raise ValueError(f"{member.filename} has {member.compress_size} bytes that become {member.file_size}")


def _check_keys(path, arrays):
    """Raises a `DataError` if training arrays or half of a test split are missing; warns of keys that are not read."""
    missing = {split: [key for key in keys if key not in arrays] for split, keys in NPZ_KEYS.items()}
    # The test split is optional.
    lacking = missing["train"] + (missing["test"] if len(missing["test"]) == 1 else [])
    if lacking:
        raise DataError(
            "An .npz file needs train_images and train_labels, and test_images and test_labels or neither. "
            f"Received: {path} without {' and '.join(lacking)}, with {sorted(arrays)}"
        )
    if others := sorted(arrays.keys() - READ):
        logger.warning("%s: not read: %s", path, ", ".join(others))


def _split_of(path, arrays, keys, image_size):
    """Returns the `Split` under these keys, with its labels unchanged; `None` if there is none.

    Raises a `DataError` if shapes or types do not fit.
    """
    if keys[0] not in arrays:
        return None
    images, labels = (arrays[key] for key in keys)
    is_whole = np.issubdtype(labels.dtype, np.integer) and labels.shape == images.shape[:1]
    is_image = images.dtype.kind in "uif" and images.ndim == 4 and images.shape[1:3] == (image_size,) * 2
    if not is_whole or not is_image or not images.size:
        raise DataError(
            f"{keys[0]} must be numbers of shape (N, {image_size}, {image_size}, channels), {keys[1]} N ints, N > 0. "
            f"Received: {path} with {images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
        )
    return Split(images, labels)


def _names_of(path, names, labels):
    """Returns the class names; "class 0" etc. if `names` is `None`. Raises a `DataError` if a label has no name."""
    # Python ints, because labels may be too large for int32.
    least, most = min(int(each.min()) for each in labels), max(int(each.max()) for each in labels)
    if names is not None:
        names = _checked_names(path, names)
    elif most < MAX_UNNAMED:
        names = [*numbered(max(most, 0) + 1)]
    else:
        raise DataError(
            f"labels must be below {MAX_UNNAMED} where there are no class_names. Received: {path} with label {most}"
        )
    if least < 0 or most >= len(names):
        raise DataError(
            f"labels must be from 0 to {len(names) - 1}, one of class_names. "
            f"Received: {path} with labels from {least} to {most}"
        )
    return names


def _checked_names(path, names):
    """Returns class names as strings. Raises a `DataError` if they are no text, or not unique."""
    # Byte strings are refused: `str` would make "b'cat'" of b"cat".
    if names.ndim != 1 or not names.size or names.dtype.kind not in "Uiu":
        raise DataError(
            "class_names must be strings, one a class; bytes need class_names.astype(str). "
            f"Received: {path} with {names.dtype} {names.shape}"
        )
    try:
        names = [*map(str, names)]
        "".join(names).encode()  # fails for lone surrogates
    except (SystemError, ValueError) as error:  # invalid code points
        raise DataError(f"class_names must be text. Received: {path} ({error})") from error
    check_names(names, path)
    return names
