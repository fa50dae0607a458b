"""The feature pyramid of two-stage detectors, P2 to P6."""

import math

import keras

from keras_cnv2.arguments import positive_int
from keras_cnv2.detection.heads import twice

LEVELS = ("P2", "P3", "P4", "P5")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class TwoStagePyramid(keras.layers.Layer):
    """Feature pyramid: P2 to P5 from the backbone's levels C2 to C5, and P6 from P5.

    ```
    P5 = conv3(conv1(C5))         P4 = conv3(conv1(C4) + up(M5))         ...         P6 = every second position of P5
    ```

    `conv1` and `conv3` are 1x1 and 3x3 convolutions. `M5` to `M3` are the inputs of `conv3` at P5 to P3. `up` repeats
    each position twice along each side.

    Args:
        width: Int, the number of channels of every level.

    Call arguments:
        features: {"P2", "P3", "P4", "P5": float tensors `(N, H / stride, W / stride, C)`}, with strides 4 to 32.

    Returns:
        List of five float tensors `(N, ceil(H / stride), ceil(W / stride), width)`, with strides 4 to 64.

    Source: Feature Pyramid Networks (arXiv 1612.03144), sections 3 and 4.1.
    """

    def __init__(self, width=256, **kwargs):
        super().__init__(**kwargs)
        self.width = positive_int("width", width)

        def convolution(kernel, name):
            return keras.layers.Conv2D(width, kernel, padding="same", dtype=self.dtype_policy, name=name)

        self.laterals = [convolution(1, f"lateral_{level}") for level in (2, 3, 4, 5)]
        self.outputs = [convolution(3, f"output_{level}") for level in (2, 3, 4, 5)]

    def build(self, input_shape):
        for level, lateral, output in zip(LEVELS, self.laterals, self.outputs):
            lateral.build(input_shape[level])
            output.build((None, None, None, self.width))
        self.built = True

    def call(self, features):
        merged = [lateral(features[level]) for level, lateral in zip(LEVELS, self.laterals)]
        for below in (2, 1, 0):
            merged[below] = merged[below] + twice(merged[below + 1])
        levels = [output(x) for output, x in zip(self.outputs, merged)]
        return [*levels, levels[-1][:, ::2, ::2]]

    def compute_output_shape(self, input_shape):
        shapes = [(*input_shape[level][:3], self.width) for level in LEVELS]
        number, *sides, width = shapes[-1]
        return [*shapes, (number, *(side and math.ceil(side / 2) for side in sides), width)]

    def get_config(self):
        return {**super().get_config(), "width": self.width}
