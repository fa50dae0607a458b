"""Class names: those of ImageNet, and the names of a model's top predictions."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import keras
import numpy as np

from keras_cnv2.arguments import positive_int

# Tolerances: of the sum of probabilities around 1, and of probabilities around the interval [0, 1] (float32 rounding).
OFF, ROUNDING = 0.01, 1e-6


@cache
def _imagenet():
    """Returns a tuple of (number, WordNet id, name) for each class."""
    rows = files("keras_cnv2.images").joinpath("imagenet_classes.tsv").read_text("utf-8").splitlines()
    return tuple(tuple(row.split("\t")) for row in rows)


def imagenet_classes():
    """Returns the names of the ImageNet-1K classes in the order of the published weights, a tuple of 1000 strings."""
    return tuple(name for _, _, name in _imagenet())


def imagenet_wnids():
    """Returns the WordNet ids ("n01440764") of the ImageNet-1K classes, which are the names of ImageNet's folders."""
    return tuple(wnid for _, wnid, _ in _imagenet())


def numbered(classes):
    """Returns default names for `classes` classes: "class 0", "class 1" and so on."""
    return tuple(f"class {index}" for index in range(classes))


def decode_predictions(
    probabilities: Any, top: int = 5, class_names: Sequence[str] | None = None, activation: str = "softmax"
) -> list[list[tuple[str, float]]]:
    """Returns the names and probabilities of the most probable classes.

    Logits and other values that are not probabilities raise an error.

    ```python
    model = keras_cnv2.ConvNeXtV2Atto(weights="imagenet")
    images = keras_cnv2.load_image("photo.jpg")[None]  # (1, 224, 224, 3)
    best = keras_cnv2.decode_predictions(model.predict(images), top=3)
    for name, probability in best[0]:
        print(f"{probability:.1%} {name}")
    ```

    Args:
        probabilities: Array or tensor `(N, classes)`, such as the output of a classifier.
        top: Int, how many classes to name; at most all.
        class_names: List of strings, one per class, such as `model.class_names`. By default the 1000 of ImageNet.
        activation: "softmax" if the probabilities of a row add up to 1, or "sigmoid" if they are independent. For a
            single class, the sum is not checked in either case.

    Returns:
        List of N lists of `top` pairs (name, probability), the most probable first.

    Raises:
        ValueError: If the shape or the number of names does not fit, there are NaN or values outside 0..1, the rows of
            a softmax do not add up to 1 within 0.01, or `top` is not a positive int.
    """
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f'activation must be "softmax" or "sigmoid". Received: activation={activation!r}')
    probabilities = np.asarray(keras.ops.convert_to_numpy(probabilities))
    names = imagenet_classes() if class_names is None else tuple(class_names)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(names):
        raise ValueError(
            f"probabilities must have the shape (N, {len(names)}), one column for each of class_names (by default "
            f"ImageNet's). Received: probabilities of shape {probabilities.shape}"
        )
    _check_probabilities(probabilities.astype("float32"), activation)
    return rank(probabilities, top, names)


def rank(values, top, names):
    """Returns the classes with the largest values, like `decode_predictions`, for any values `(N, classes)`."""
    positive_int("top", top)
    values = np.asarray(values)
    ranked = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [[(names[index], float(row[index])) for index in indices] for row, indices in zip(values, ranked)]


def _check_probabilities(probabilities, activation):
    wrong = probabilities[~((probabilities >= -ROUNDING) & (probabilities <= 1 + ROUNDING))]
    if wrong.size:
        raise ValueError(
            "Probabilities must be numbers in 0..1: use a model with softmax or sigmoid (with "
            "classifier_activation=None it returns logits) and finite weights. "
            f"Received: {wrong.size} others, such as {wrong[0]}"
        )
    sums = probabilities.sum(axis=1)
    off = sums[np.abs(sums - 1) > OFF]
    if activation == "softmax" and probabilities.shape[1] > 1 and off.size:
        raise ValueError(
            'The probabilities of an image must add up to 1; if they are independent, give activation="sigmoid". '
            f"Received: {off.size} rows that do not, such as one with the sum {off[0]:.4g}"
        )
