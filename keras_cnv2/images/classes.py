"""Names of classes: ImageNet's, and those behind a model's probabilities."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import keras
import numpy as np

from keras_cnv2.arguments import positive_int


@cache
def _imagenet():
    """Number, WordNet id and name of each class."""
    rows = files("keras_cnv2.images").joinpath("imagenet_classes.tsv").read_text("utf-8").splitlines()
    return tuple(tuple(row.split("\t")) for row in rows)


def imagenet_classes():
    """The names of ImageNet-1K's classes in the order of the published weights, a tuple of 1000 strings."""
    return tuple(name for _, _, name in _imagenet())


def imagenet_wnids():
    """Their WordNet ids ("n01440764"), which are what ImageNet's folders are called."""
    return tuple(wnid for _, wnid, _ in _imagenet())


def decode_predictions(
    probabilities: Any, top: int = 5, class_names: Sequence[str] | None = None
) -> list[list[tuple[str, float]]]:
    """Names the most probable classes.

    Args:
        probabilities: Array or tensor `(N, classes)`, such as a classifier returns.
        top: Int, how many classes to name, at most all.
        class_names: List of one string a class, such as `model.class_names`; by default ImageNet's 1000.

    Returns:
        List of N lists of `top` pairs (name, probability), the most probable first.

    Raises:
        ValueError: If the shape or the number of names does not fit, or `top` is no positive int.
    """
    positive_int("top", top)
    probabilities = np.asarray(keras.ops.convert_to_numpy(probabilities))
    names = imagenet_classes() if class_names is None else tuple(class_names)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(names):
        raise ValueError(
            f"probabilities must have the shape (N, {len(names)}), one column for each of class_names (by default "
            f"ImageNet's). Received: probabilities of shape {probabilities.shape}"
        )
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [[(names[index], float(row[index])) for index in indices] for row, indices in zip(probabilities, ranked)]
