"""Soft labels, mixup and CutMix: augmentation of a whole batch. Imports no TensorFlow."""

import keras
from keras import ops

from .windows import within


def soft_labels(labels, classes, smoothing):
    """Returns smoothed targets: `smoothing / classes` for each class, plus `1 - smoothing` for the image's own class.

    Args:
        labels: Integer tensor `(N,)`.
        classes: Int.
        smoothing: Float in `[0, 1)`.

    Returns:
        A float32 tensor `(N, classes)`.
    """
    return ops.one_hot(labels, classes, dtype="float32") * (1 - smoothing) + smoothing / classes


def mix(images, labels, mixup, cutmix, draws):
    """Mixes each image of a batch with another one, and their labels in proportion.

    Mixup blends the two images; CutMix pastes a box of the other one. If both are on, the batch gets either with
    probability 0.5. The share is drawn from Beta(alpha, alpha) once per batch; the partners are the batch in reverse
    order.

    Args:
        images: Tensor `(N, H, W, C)`, values in 0..255, any dtype.
        labels: Float tensor `(N, classes)`.
        mixup, cutmix: Alphas, floats from 0 (off).
        draws: `Draws` of the batch.

    Returns:
        The images, float32, and the labels; both unchanged if both methods are off.

    Source: mixup (arXiv 1710.09412), section 2; CutMix (arXiv 1905.04899), section 3.1; the choice between both as in
    timm.
    """
    if not (mixup or cutmix):
        return images, labels
    images, labels = ops.cast(images, "float32"), ops.convert_to_tensor(labels)
    _, height, width, _ = ops.shape(images)
    turn, y, x = ops.unstack(keras.random.uniform((3,), dtype="float32", seed=draws), 3)
    pasted = turn < (0.5 if mixup and cutmix else float(cutmix > 0))
    alpha = ops.where(pasted, float(cutmix), float(mixup))
    share = keras.random.beta((), alpha, alpha, dtype="float32", seed=draws)
    own = ops.where(pasted, _outside_box(height, width, y, x, share), share)
    own_label = ops.mean(own)
    return (
        own * images + (1 - own) * ops.flip(images, axis=0),
        own_label * labels + (1 - own_label) * ops.flip(labels, axis=0),
    )


def _outside_box(height, width, y, x, share):
    """Returns CutMix's mask `(height, width, 1)`: 0 in a box around (y, x), in 0..1, clipped to the image; else 1."""
    edges = []
    for side, at in ((height, y), (width, x)):
        side = ops.cast(side, "float32")
        half = ops.floor(side * ops.sqrt(1 - share)) // 2
        centre = ops.floor(side * at)
        edges.append((ops.maximum(centre - half, 0), ops.minimum(centre + half, side)))
    (top, bottom), (left, right) = edges
    return 1 - ops.cast(within(height, width, top, left, bottom, right), "float32")
