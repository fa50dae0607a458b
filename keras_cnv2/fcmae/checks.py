"""Checks of the arguments of `FCMAE`, and of the inputs it is called with."""

import numpy as np
from keras import ops

from keras_cnv2.arguments import is_positive_int, number
from keras_cnv2.fcmae import masking
from keras_cnv2.models.backbone import ConvNeXtV2Backbone


def check_backbone(backbone):
    """Raises a `ValueError` for a backbone that cannot be pre-trained. Names of sizes are checked later."""
    if not isinstance(backbone, (str, ConvNeXtV2Backbone)):
        raise ValueError(
            "backbone must be the name of a size or a ConvNeXtV2Backbone (whose weights come from any checkpoint: "
            f"ConvNeXtV2Backbone(..., weights=path)). Received: backbone={backbone!r}"
        )
    if getattr(backbone, "pyramid_norms", False):
        raise ValueError(
            "FCMAE pre-trains the encoder alone: give a backbone without pyramid norms, and load its weights into "
            f"one with them afterwards. Received: backbone={backbone.name!r} with pyramid_norms=True"
        )
    for name in ("output_stride", "out_levels"):
        if getattr(backbone, name, None) is not None:
            raise ValueError(
                f"FCMAE pre-trains whole encoders with their own strides: give a backbone without {name}, and load its "
                f"weights into one with it afterwards. Received: backbone={backbone.name!r} with "
                f"{name}={getattr(backbone, name)!r}"
            )
    if isinstance(backbone, ConvNeXtV2Backbone) and backbone.images is not backbone.input:
        raise ValueError(
            "FCMAE would leave out the layers in front of the backbone: put them into the dataset, and give a backbone "
            f"without input_tensor. Received: backbone={backbone.name!r}, whose input_tensor comes out of other layers"
        )


def check_same(model, **given):
    """Raises a `ValueError` for an argument that is given and differs from the backbone's value."""
    for name, received in given.items():
        if received not in (None, getattr(model, name)):
            raise ValueError(
                f"{name} must be left out or equal that of the backbone, {getattr(model, name)!r}. "
                f"Received: {name}={received!r}"
            )


def sides(image_size, patch):
    """Returns height and width of the images as ints; raises a `ValueError` if they are invalid."""
    pair = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(pair) != 2 or not all(is_positive_int(side) and side % patch == 0 for side in pair):
        raise ValueError(
            f"image_size must be an int or (height, width), multiples of the patch of {patch} pixels. "
            f"Received: image_size={image_size!r}"
        )
    return tuple(map(int, pair))


def visible_patches(grid, mask_ratio):
    """Returns the number of visible patches of an image of `grid` patches; raises a `ValueError` if it is invalid."""
    number("mask_ratio", mask_ratio, "a number between 0 and 1", lambda x: 0 < x < 1)
    height, width = grid
    visible = masking.count_visible(height * width, mask_ratio)
    if not 0 < visible < height * width:
        raise ValueError(
            f"mask_ratio must leave at least one of the {height} x {width} patches visible and one hidden. "
            f"Received: mask_ratio={mask_ratio!r}, which leaves {visible} visible"
        )
    return visible


def check_loss(loss):
    """Raises a `ValueError` if a loss is given to `compile`."""
    if loss is not None:
        raise ValueError(
            "FCMAE has its own loss: call compile without one, and override reconstruction_loss for another loss. "
            f"Received: loss={loss!r}"
        )


# Arguments of `keras.Model.compile` that FCMAE does not take.
NOT_COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")


def check_metrics(**arguments):
    """Raises a `ValueError` if metrics are given to `compile`: Keras would call them with labels."""
    given = {name: value for name, value in arguments.items() if value}
    if given:
        raise ValueError(
            "FCMAE has no labels for metrics: fit and evaluate report its loss; for other values, override "
            f"compute_metrics. Received: {given}"
        )


def split(images, hidden=None):
    """Splits a dict of "images" and "hidden", the form that datasets can hold; returns images and masks."""
    if not isinstance(images, dict):
        return images, hidden
    if not {"images"} <= images.keys() <= {"images", "hidden"}:
        raise ValueError(f'A dict must hold "images" and may hold "hidden". Received: the keys {list(images)}')
    return images["images"], images.get("hidden", hidden)


def fitting(name, tensor, expected):
    """Returns the tensor as float32 `(N, *expected)`; raises a `ValueError` if its shape differs.

    Sizes that are unknown, as in some datasets, become known.
    """
    if not hasattr(tensor, "shape"):
        raise ValueError(
            f'{name} must be one array or tensor; images and masks go together as a dict of "images" and "hidden". '
            f"Received: {name} of type {type(tensor).__name__}"
        )
    sizes = tuple(tensor.shape)[1:]
    if len(sizes) != len(expected) or any(size not in (None, e) for size, e in zip(sizes, expected)):
        raise ValueError(
            f"{name} must have the shape (N, {', '.join(map(str, expected))}). "
            f"Received: {name} of shape {tuple(tensor.shape)}"
        )
    return ops.reshape(ops.cast(tensor, "float32"), (-1, *expected))


def known_masks(hidden):
    """Returns the values of given masks, checked; `None` inside a compiled function, where they are not known yet."""
    try:
        values = ops.convert_to_numpy(hidden)
    except (NotImplementedError, TypeError, ValueError):  # a symbolic tensor
        return None
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"hidden must hold 1 where hidden and 0 where visible. Received: values {np.unique(values)[:5].tolist()}"
        )
    return values


def count_visible(hidden, values, expected):
    """Checks the number of visible patches in given masks.

    Args:
        hidden: Masks `(N, h, w)`.
        values: The values of the masks as a NumPy array, or `None` if they are unknown.
        expected: Int, the number of visible patches to assume for unknown values.

    Returns:
        The number of visible patches in every image. For unknown values, also a bool tensor `(N, 1, 1, 1)` that tells
        which images have this number; else `None`.

    Raises:
        ValueError: If the values are known, and images differ in the number or have no visible patch.
    """
    if values is None:
        counts = ops.sum(1 - hidden, axis=(1, 2))
        return expected, ops.reshape(counts == expected, (-1, 1, 1, 1))
    counts = (1 - values).sum((1, 2)).astype(int)
    visible = int(counts[0])
    if visible < 1 or (counts != visible).any():
        raise ValueError(
            "hidden must leave the same number of patches visible in every image, at least one "
            f'(encoder="dense" takes any masks). Received: visible patches {counts.tolist()}'
        )
    return visible, None
