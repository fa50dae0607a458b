"""From images to classes of pixels, as segmentation models are tested: whole or in windows, at scales and flipped."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.images.normalization import pixel_statistics
from keras_cnv2.segmentation.labels import of_each_label
from keras_cnv2.segmentation.resample import resize


class Segmenter:
    """A segmentation model with a way to look at images, compiled.

    ```python
    segmenter = Segmenter(model, window=512, scales=(0.75, 1.0, 1.25), flip=True)
    classes = segmenter(images, size=labels.shape[1:3])
    ```

    With a window, images are seen part by part: windows lie `stride` apart, the last of a row or column is shifted
    inwards so that it ends with the image, and logits are averaged where windows overlap. Smaller images are filled up
    at the bottom and on the right with the mean colour. Of several scales, and of images and their mirror images, the
    probabilities are averaged, after each has been resized to the size that is asked for.

    Under TensorFlow the model is compiled once for all sizes, under JAX once for each: a window then saves time.

    Args:
        model: A model from images to logits of the images' size, like `UPerNet`.
        window: Int or (height, width) in pixels; `None` for the whole image at once. A model with a fixed image size,
            like DeepLabV3+, takes that alone.
        stride: Int or (height, width), by default two thirds of the window.
        scales: Positive floats, factors on the size of images.
        flip: Bool, whether to see the mirror images as well.

    Call arguments:
        images: Array or tensor `(N, height, width, channels)`.
        size: (height, width) of the answer, by default that of the images. Labels are compared at their own size.

    Returns:
        The most probable class of each pixel, an int32 NumPy array `(N, *size)`. Of a model of one class, 1 is the
        class and 0 all else.

    Raises:
        ValueError: If an argument is out of range, or the model takes images of another size alone.

    Source: The tests of mmsegmentation, whose windows, scales and mirror images these are.
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
            raise ValueError(f"A stride is that of a window. Received: stride={stride!r} with window=None")
        if window is not None:
            # At least one pixel, and no gaps.
            self.stride = (
                tuple(max(side * 2 // 3, 1) for side in self.window) if stride is None else _sides("stride", stride)
            )
            if any(step > side for step, side in zip(self.stride, self.window)):
                raise ValueError(f"stride must be at most the window, {self.window}. Received: stride={stride!r}")
        if not isinstance(scales, (tuple, list)) or not scales or not all(scale > 0 for scale in scales):
            raise ValueError(f"scales must be positive numbers, one at least. Received: scales={scales!r}")
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
        """The probabilities behind the classes.

        Args:
            images, size: As in a call.

        Returns:
            A float32 tensor `(N, *size, classes)`; of a model of one class `(N, *size, 2)`, that of all else first.
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
            f"The model takes images of {height} x {width} alone: give window={window}. Received: {received}"
        )

    def _view(self, images, scale, mirrored, size):
        """The probabilities of images as seen at a scale, maybe in a mirror."""
        if scale != 1:
            # Halves up, as in mmcv: Python's `round` takes them to the even number.
            images = resize(images, [max(math.floor(side * scale + 0.5), 1) for side in images.shape[1:3]])
        images = ops.flip(images, axis=2) if mirrored else images
        logits = self._forward(images) if self.window is None else self._in_windows(images)
        logits = logits if tuple(logits.shape[1:3]) == size else resize(logits, size)
        probabilities = ops.softmax(of_each_label(ops.cast(logits, "float32")), axis=-1)
        return ops.flip(probabilities, axis=2) if mirrored else probabilities

    def _in_windows(self, images):
        """The logits of images, averaged over the windows."""
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
        """The images, as large as a window at least."""
        missing = [(0, max(window - side, 0)) for window, side in zip(self.window, images.shape[1:3])]
        if not np.any(missing):
            return images
        outside = np.pad(np.zeros(images.shape[1:3], "float32"), missing, constant_values=1)[..., None]
        return ops.pad(images, ((0, 0), *missing, (0, 0))) + ops.convert_to_tensor(outside) * self.fill


def predict_classes(model: keras.Model, images: Any, size: Sequence[int] | None = None, **options: Any) -> np.ndarray:
    """The most probable class of each pixel. For many images keep a `Segmenter`: each is compiled anew.

    Args:
        model: A model from images to logits of the images' size, like `UPerNet`.
        images: Array or tensor `(N, height, width, channels)`.
        size: (height, width) of the answer, by default that of the images.
        **options: `window`, `stride`, `scales` and `flip` of `Segmenter`.

    Returns:
        An int32 NumPy array `(N, *size)`.
    """
    return Segmenter(model, **options)(images, size)


def _starts(side, window, stride):
    """Where windows start along a side that is a window long at least."""
    count = -(-(side - window) // stride) + 1
    return [min(number * stride, side - window) for number in range(count)]


def _sides(name, value):
    """(height, width) of an int or a pair."""
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2 or not all(map(is_positive_int, sides)):
        raise ValueError(f"{name} must be a positive int or (height, width). Received: {name}={value!r}")
    return sides


def _mean_colour(model):
    """What images are filled up with: the mean, which is zero once images are normalised."""
    backbone = getattr(model, "backbone", model)
    channels = _input_shape(model)[-1]
    return pixel_statistics(channels)[0] if getattr(backbone, "include_preprocessing", True) and channels else 0.0


def _only_size(model):
    """(height, width) of the only images that a model takes, `None` if it takes several."""
    size = tuple(_input_shape(model)[1:3])
    return None if None in size else size


def _input_shape(model):
    try:
        return model.input_shape
    except AttributeError:  # of a model that is no functional one
        return (None, None, None, None)


def _compiled(model):
    """A function from float32 images to logits, compiled where the backend can."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # One signature for all sizes: there are as many as pictures, and each would be traced.
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
