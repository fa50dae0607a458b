"""Figures about channels, on arrays."""

import numpy as np

TINY = 1e-12


def cosine_distance(activations):
    """How unlike the channels of each image are.

    With `x_i` the values of channel i over the image, the mean over all pairs of `(1 - cos(x_i, x_j)) / 2`: 0 if all
    channels are alike, 1/2 if they have nothing in common. A channel that is zero everywhere has nothing in common with
    any, itself included.

    Args:
        activations: Float array `(N, H, W, C)`.

    Returns:
        Float64 array `(N,)`.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1, "Feature cosine distance analysis".
    """
    x = activations.reshape(len(activations), -1, activations.shape[-1]).astype("float64")
    unit = x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), TINY)
    # The cosines of all pairs are the products of unit vectors: their mean is that of the mean vector with itself.
    return (1 - (unit.mean(-1) ** 2).sum(-1)) / 2


class Selectivity:
    """How much each channel answers to one class alone, over any number of batches.

    With `a` a channel's mean activity for the class it answers to most, and `b` for all others, `(a - b) / (a + b)`:
    0 if it answers to all classes alike, 1 if to one alone. Activity is what is positive, as after a ReLU.

    Args:
        classes: Int, the number of classes.

    Source: ConvNeXt V2 (arXiv 2301.00808), appendix, "Class selectivity index"; On the importance of single directions
        for generalization (arXiv 1803.06959), which has ReLUs; outputs of our residual blocks are of both signs.
    """

    def __init__(self, classes):
        self.images = np.zeros(classes)
        self.sums = 0.0

    def update(self, outputs, labels):
        """Counts a batch in: float array `(N, H, W, C)`, ints `(N,)`."""
        of_class = labels[:, None] == np.arange(len(self.images))
        self.images += of_class.sum(0)
        self.sums = self.sums + of_class.T @ np.maximum(outputs, 0).mean((1, 2), dtype="float64")

    def result(self):
        """Float array `(C,)` of indices; classes without images do not count."""
        seen = self.images > 0
        if seen.sum() < 2:
            raise ValueError(f"Selectivity needs images of two classes or more. Received: {seen.sum()}")
        means = self.sums[seen] / self.images[seen, None]
        best = means.max(0)
        others = (means.sum(0) - best) / (len(means) - 1)
        return (best - others) / np.maximum(best + others, TINY)


def grad_cam(features, head_norm, head, labels):
    """Where each image has what speaks for a class.

    The sum of the last stage's channels, each weighted by the gradient of the class's logit, where that is positive.
    What follows the last stage is a mean, a LayerNorm and a dense layer, so the gradient is written out here.

    Args:
        features: Float array `(N, h, w, C)`, the last stage's output.
        head_norm: The `keras.layers.LayerNormalization` after the pooling.
        head: The `keras.layers.Dense` after it.
        labels: Ints `(N,)`, the classes.

    Returns:
        Float array `(N, h, w)` from 0 to 1, the largest of each image being 1 if there is any.

    Source: Grad-CAM (arXiv 1610.02391), equations 1 and 2.
    """
    gamma, _ = (np.asarray(weight, "float64") for weight in head_norm.get_weights())
    kernel = np.asarray(head.get_weights()[0], "float64")
    pooled = features.mean((1, 2), dtype="float64")
    centred = pooled - pooled.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + head_norm.epsilon)
    x = centred / deviation
    v = kernel.T[labels] * gamma
    gradient = (v - v.mean(-1, keepdims=True) - x * (v * x).mean(-1, keepdims=True)) / deviation
    maps = np.maximum(np.einsum("nhwc,nc->nhw", features, gradient), 0)
    return maps / np.maximum(maps.max((1, 2), keepdims=True), TINY)
