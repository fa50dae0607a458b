"""Inference of segmentation models: on whole images or sliding windows, at several scales and flipped."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.checkpoints.metadata import own_statistics
from keras_cnv2.images.normalization import pixel_statistics
from keras_cnv2.segmentation.labels import of_each_label
from keras_cnv2.segmentation.resample import resize


class Segmenter:
    """A segmentation model compiled for inference, with sliding windows, several scales and flips.

    ```python
    segmenter = keras_cnv2.segmentation.Segmenter(model, window=512, scales=(0.75, 1.0, 1.25), flip=True)
    classes = segmenter(images, size=labels.shape[1:3])
    ```

    With a window, the model is applied to parts of the image. Windows are `stride` pixels apart; the last one of a row
    or column is shifted inwards so that it ends at the border of the image. Logits are averaged where windows overlap.
    Images smaller than the window are padded at the bottom and on the right with the mean colour. With several scales,
    or with flips, the probabilities are resized to the requested size and averaged.

    With TensorFlow the model is compiled once for all sizes. With JAX it is compiled once per size, so that a window
    saves compilation time.

    Args:
        model: A model from images to logits of the images' size, like `UPerNet`.
        window: Int or (height, width) in pixels; `None` to process whole images. For a model with a fixed image size,
            like DeepLabV3+, a window must have that size.
        stride: Int or (height, width) in pixels, by default two thirds of the window.
        scales: List or tuple of positive floats, factors by which images are resized.
        flip: Bool, whether to process the horizontally flipped images as well.

    Call arguments:
        images: Array or tensor `(N, height, width, channels)`.
        size: (height, width) of the result in pixels, by default that of the images. To compare with labels, pass the
            size of the labels.

    Returns:
        The most probable class of each pixel, an int32 NumPy array `(N, *size)`. For a model with one class, 1 is the
        class and 0 the background.

    Raises:
        ValueError: If an argument is out of range, or the model only takes images of another size.

    Source: The test-time augmentation of mmsegmentation.
    """

    def __init__(
        self,
        model: keras.Model,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ):
        self.window = None if window is None else _sides("window", window)
        if stride is not None and window is None:
            raise ValueError(f"A stride is only allowed with a window. Received: stride={stride!r}, window=None")
        if window is not None:
            # A stride of at least one pixel, and at most the window, so that there are no gaps.
            self.stride = (
                tuple(max(side * 2 // 3, 1) for side in self.window) if stride is None else _sides("stride", stride)
            )
            if any(step > side for step, side in zip(self.stride, self.window)):
                raise ValueError(f"stride must be at most the window, {self.window}. Received: stride={stride!r}")
        if not isinstance(scales, (tuple, list)) or not scales or not all(scale > 0 for scale in scales):
            raise ValueError(
                f"scales must be a list or tuple of at least one positive number. Received: scales={scales!r}"
            )
        self.scales = tuple(scales)
        self.flip = flip
        self._only_size = _only_size(model)
        if self._only_size and (self.window != self._only_size if self.window else {*self.scales} != {1}):
            raise self._size_error(f"window={window!r}, scales={scales!r}")
        self.fill = _mean_colour(model)
        self._forward = _compiled(model)

    def __call__(self, images: Any, size: Sequence[int] | None = None) -> np.ndarray:
        return ops.convert_to_numpy(ops.argmax(self.probabilities(images, size), axis=-1)).astype("int32")

    def probabilities(self, images: Any, size: Sequence[int] | None = None) -> Any:
        """Computes the probabilities of the classes.

        Args:
            images, size: As in a call.

        Returns:
            A float32 tensor `(N, *size, classes)`; for a model with one class `(N, *size, 2)`, the background first.
        """
        images = ops.cast(images, "float32")
        if self._only_size and not self.window and tuple(images.shape[1:3]) != self._only_size:
            raise self._size_error(f"images of shape {tuple(images.shape)}")
        size = tuple(images.shape[1:3]) if size is None else tuple(map(int, size))
        mirrors = (False, True) if self.flip else (False,)
        views = [self._view(images, scale, mirror, size) for scale in self.scales for mirror in mirrors]
        return sum(views) / len(views)

    def _size_error(self, received):
        height, width = self._only_size
        window = height if height == width else (height, width)
        return ValueError(
            f"The model only takes images of {height} x {width}: give window={window}. Received: {received}"
        )

    def _view(self, images, scale, mirrored, size):
        """Computes the probabilities at one scale, for the images or the flipped images."""
        if scale != 1:
            # Rounds half up, as mmcv does. Python's `round` rounds half to even.
            images = resize(images, [max(math.floor(side * scale + 0.5), 1) for side in images.shape[1:3]])
        images = ops.flip(images, axis=2) if mirrored else images
        logits = self._forward(images) if self.window is None else self._in_windows(images)
        logits = logits if tuple(logits.shape[1:3]) == size else resize(logits, size)
        probabilities = ops.softmax(of_each_label(ops.cast(logits, "float32")), axis=-1)
        return ops.flip(probabilities, axis=2) if mirrored else probabilities

    def _in_windows(self, images):
        """Computes the logits of images, averaged over sliding windows."""
        height, width = images.shape[1:3]
        images = self._filled_up(images)
        bottom, right = images.shape[1:3]
        total, count = 0, np.zeros((bottom, right, 1), "float32")
        for top in _starts(bottom, self.window[0], self.stride[0]):
            for left in _starts(right, self.window[1], self.stride[1]):
                rows, columns = slice(top, top + self.window[0]), slice(left, left + self.window[1])
                around = ((0, 0), (top, bottom - rows.stop), (left, right - columns.stop), (0, 0))
                total = total + ops.pad(self._forward(images[:, rows, columns]), around)
                count[rows, columns] += 1
        return (total / ops.convert_to_tensor(count))[:, :height, :width]

    def _filled_up(self, images):
        """Pads images to at least the size of the window."""
        missing = [(0, max(window - side, 0)) for window, side in zip(self.window, images.shape[1:3])]
        if not np.any(missing):
            return images
        outside = np.pad(np.zeros(images.shape[1:3], "float32"), missing, constant_values=1)[..., None]
        return ops.pad(images, ((0, 0), *missing, (0, 0))) + ops.convert_to_tensor(outside) * self.fill


def predict_classes(model: keras.Model, images: Any, size: Sequence[int] | None = None, **options: Any) -> np.ndarray:
    """Predicts the most probable class of each pixel.

    Every call compiles the model. To predict several batches, use one `Segmenter`.

    ```python
    classes = keras_cnv2.segmentation.predict_classes(model, images, window=512, flip=True)  # (N, height, width)
    ```

    Args:
        model: A model from images to logits of the images' size, like `UPerNet`.
        images: Array or tensor `(N, height, width, channels)`.
        size: (height, width) of the result in pixels, by default that of the images.
        **options: `window`, `stride`, `scales` and `flip`, see `Segmenter`.

    Returns:
        An int32 NumPy array `(N, *size)`.
    """
    return Segmenter(model, **options)(images, size)


def _starts(side, window, stride):
    """Returns the start positions of windows along a side, which is at least as long as the window."""
    count = -(-(side - window) // stride) + 1
    return [min(number * stride, side - window) for number in range(count)]


def _sides(name, value):
    """Returns (height, width) for an int or a pair."""
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2 or not all(map(is_positive_int, sides)):
        raise ValueError(f"{name} must be a positive int or (height, width). Received: {name}={value!r}")
    return sides


def _mean_colour(model):
    """Returns the value to pad images with: the mean colour, or 0 if the model takes normalised images."""
    backbone = getattr(model, "backbone", model)
    channels = _input_shape(model)[-1]
    if not channels or not getattr(backbone, "include_preprocessing", True):
        return 0.0
    return pixel_statistics(channels, *own_statistics(model))[0]


def _only_size(model):
    """Returns (height, width) of a model with a fixed image size, `None` for other models."""
    size = tuple(_input_shape(model)[1:3])
    return None if None in size else size


def _input_shape(model):
    try:
        return model.input_shape
    except AttributeError:  # subclassed models have no `input_shape`
        return (None, None, None, None)


def _compiled(model):
    """Returns a function from float32 images to logits, compiled if the backend can compile it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # One signature for all sizes, because each image may have its own size and would be traced again.
        images = tf.TensorSpec((None, *_input_shape(model)[1:]), tf.float32)
        return tf.function(lambda images: model(images, training=False), input_signature=[images], autograph=False)
    if backend == "jax":
        import jax

        @jax.jit
        def forward(trainable, others, images):
            return model.stateless_call(trainable, others, images, training=False)[0]

        def values(variables):
            return [variable.value for variable in variables]

        return lambda images: forward(values(model.trainable_variables), values(model.non_trainable_variables), images)
    if backend == "torch":
        import torch

        return torch.no_grad()(lambda images: model(images, training=False))
    return lambda images: model(images, training=False)
