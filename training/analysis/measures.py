"""Measures of channels, computed on NumPy arrays."""

import numpy as np

TINY = 1e-12


def cosine_distance(activations):
    """Computes the mean cosine distance between the channels of each image.

    This is the mean of `(1 - cos(x_i, x_j)) / 2` over all pairs of channels, where `x_i` are the values of channel i
    over the image: 0 if all channels are equal up to scale, 1/2 if they are orthogonal. A channel that is zero
    everywhere counts as orthogonal to all channels, including itself.

    Args:
        activations: Float array `(N, H, W, C)`.

    Returns:
        Float64 array `(N,)` of distances.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1, "Feature cosine distance analysis".
    """
    x = activations.reshape(len(activations), -1, activations.shape[-1]).astype("float64")
    unit = x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), TINY)
    # A cosine is the dot product of two unit vectors. The mean over all pairs is that of the mean vector with itself.
    return (1 - (unit.mean(-1) ** 2).sum(-1)) / 2


class Selectivity:
    """Computes the class selectivity index of each channel, over any number of batches.

    The index is `(a - b) / (a + b)`, where `a` is a channel's mean activity for the class that activates it most, and
    `b` its mean activity for all other classes: 0 if it responds to all classes equally, 1 if to a single class.
    Activity is the positive part of the activations, as after a ReLU.

    Args:
        classes: Int, the number of classes.

    Source: ConvNeXt V2 (arXiv 2301.00808), appendix, "Class selectivity index"; On the importance of single directions
        for generalization (arXiv 1803.06959). The latter uses ReLUs; our residual blocks have outputs of both signs.
    """

    def __init__(self, classes):
        self.images = np.zeros(classes)
        self.sums = 0.0

    def update(self, outputs, labels):
        """Adds a batch: outputs, a float array `(N, H, W, C)`, and labels, ints `(N,)`."""
        of_class = labels[:, None] == np.arange(len(self.images))
        self.images += of_class.sum(0)
        self.sums = self.sums + of_class.T @ np.maximum(outputs, 0).mean((1, 2), dtype="float64")

    def result(self):
        """Returns a float array `(C,)` of indices; classes without images are ignored."""
        seen = self.images > 0
        if seen.sum() < 2:
            raise ValueError(f"Selectivity needs images of two classes or more. Received: {seen.sum()}")
        means = self.sums[seen] / self.images[seen, None]
        best = means.max(0)
        others = (means.sum(0) - best) / (len(means) - 1)
        return (best - others) / np.maximum(best + others, TINY)


def grad_cam(features, head_norm, head, labels):
    """Computes Grad-CAM maps, which show the image regions that support a class.

    A map is the positive part of the sum of the last stage's channels, each weighted by the mean gradient of the
    class's logit. The layers after the last stage are a mean, a LayerNorm and a dense layer, so the gradient is
    computed in closed form.

    Args:
        features: Float array `(N, h, w, C)`, the last stage's output.
        head_norm: The `keras.layers.LayerNormalization` after the pooling.
        head: The `keras.layers.Dense` after it.
        labels: Ints `(N,)`, the classes.

    Returns:
        Float array `(N, h, w)` from 0 to 1. The maximum of each image is 1, unless its map is all zero.

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
