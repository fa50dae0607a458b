"""What `FCMAE` demands of its arguments, and of what it is called with."""

import numpy as np
from keras import ops

from keras_cnv2.arguments import is_positive_int, number
from keras_cnv2.fcmae import masking
from keras_cnv2.models.backbone import ConvNeXtV2Backbone


def check_backbone(backbone):
    """Raises a `ValueError` for what cannot be pre-trained; whether a name is one of a size, is seen later."""
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
    if isinstance(backbone, ConvNeXtV2Backbone) and backbone.images is not backbone.input:
        raise ValueError(
            "FCMAE would leave out the layers in front of the backbone: put them into the dataset, and give a backbone "
            f"without input_tensor. Received: backbone={backbone.name!r}, whose input_tensor comes out of other layers"
        )


def check_same(model, **given):
    """Raises a `ValueError` for an argument that is neither left out nor what the model has from its backbone."""
    for name, received in given.items():
        if received not in (None, getattr(model, name)):
            raise ValueError(
                f"{name} must be left out or that of the backbone, {getattr(model, name)!r}. "
                f"Received: {name}={received!r}"
            )


def sides(image_size, patch):
    """Height and width of the images as ints, or a `ValueError`."""
    pair = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(pair) != 2 or not all(is_positive_int(side) and side % patch == 0 for side in pair):
        raise ValueError(
            f"image_size must be an int or (height, width), multiples of the patch of {patch} pixels. "
            f"Received: image_size={image_size!r}"
        )
    return tuple(map(int, pair))


def visible_patches(grid, mask_ratio):
    """The number of visible patches of an image of `grid` patches, or a `ValueError`."""
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
    """Raises a `ValueError` for a loss given to `compile`."""
    if loss is not None:
        raise ValueError(
            "FCMAE has a loss of its own, reconstruction_loss: compile it without one, and override that for another. "
            f"Received: loss={loss!r}"
        )


# What `keras.Model.compile` takes and an FCMAE does not.
NOT_COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")


def check_metrics(**arguments):
    """Raises a `ValueError` for metrics given to `compile`, which Keras would call with labels."""
    given = {name: value for name, value in arguments.items() if value}
    if given:
        raise ValueError(
            "FCMAE has no labels for metrics: its loss is measured in fit and evaluate, other figures in a "
            f"compute_metrics of your own. Received: {given}"
        )


def split(images, hidden=None):
    """What a model is called with, as images and masks: a dict of both is what data sets can hold."""
    if not isinstance(images, dict):
        return images, hidden
    if not {"images"} <= images.keys() <= {"images", "hidden"}:
        raise ValueError(f'A dict must hold "images" and may hold "hidden". Received: the keys {list(images)}')
    return images["images"], images.get("hidden", hidden)


def fitting(name, tensor, expected):
    """The tensor as float32 `(N, *expected)`, checked; sizes that a dataset left open become known."""
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
    """The values of given masks, checked; `None` where a function is being compiled, which has none yet."""
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
    """The number of visible patches of given masks and, where values are unknown, which images have it."""
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
