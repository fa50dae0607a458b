"""The heads of Mask R-CNN: objectness of anchors, classes and boxes of proposals, and masks."""

import keras
from keras import ops

from keras_cnv2.arguments import positive_int


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ProposalHead(keras.layers.Layer):
    """Predicts for each anchor whether it contains an object, and how its box differs from it.

    A 3x3 convolution with ReLU, then a 1x1 convolution for each of the two. All levels of the pyramid share one head.

    Args:
        width: Int, the number of channels of the 3x3 convolution.
        anchors: Int A, the number of anchors at each position.

    Call arguments:
        features: Float tensor `(N, H, W, C)`.

    Returns:
        Logits `(N, H * W * A)` and deltas `(N, H * W * A, 4)`, float32, of a float64 policy float64.

    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.
    """

    def __init__(self, width=256, anchors=3, **kwargs):
        super().__init__(**kwargs)
        self.width, self.anchors = positive_int("width", width), positive_int("anchors", anchors)

        def convolution(filters, kernel, name, **options):
            start = keras.initializers.RandomNormal(stddev=0.01)
            return keras.layers.Conv2D(filters, kernel, padding="same", kernel_initializer=start, name=name, **options)

        policy = self.dtype_policy
        self.conv = convolution(width, 3, "conv", activation="relu", dtype=policy)
        # Half precision would round boxes by several pixels.
        self.objectness = convolution(anchors, 1, "objectness", dtype=_precise(policy))
        self.deltas = convolution(4 * anchors, 1, "deltas", dtype=_precise(policy))

    def build(self, input_shape):
        self.conv.build(input_shape)
        for layer in (self.objectness, self.deltas):
            layer.build((*input_shape[:-1], self.width))
        self.built = True

    def call(self, features):
        x = self.conv(features)
        number = self._number(features.shape)
        return ops.reshape(self.objectness(x), (-1, number)), ops.reshape(self.deltas(x), (-1, number, 4))

    def _number(self, shape):
        return -1 if None in shape[1:3] else shape[1] * shape[2] * self.anchors

    def compute_output_shape(self, input_shape):
        number = None if None in input_shape[1:3] else self._number(input_shape)
        return (input_shape[0], number), (input_shape[0], number, 4)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "anchors": self.anchors}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class BoxHead(keras.layers.Layer):
    """Predicts the class of each proposal, and for each class how the box differs from the proposal.

    Two dense layers with ReLU, then a dense layer for each of the two.

    Args:
        classes: Int K, the number of classes, without the background.
        units: Int, the number of units of the two dense layers.

    Call arguments:
        features: Float tensor `(N, R, S, S, C)`, the features of R proposals.

    Returns:
        Logits `(N, R, K + 1)`, the last one of the background, and deltas `(N, R, K, 4)`, float32, of a
        float64 policy float64.

    Source: Feature Pyramid Networks (arXiv 1612.03144), section 4.2.
    """

    def __init__(self, classes, units=1024, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.units = positive_int("classes", classes), positive_int("units", units)
        policy = self.dtype_policy
        self.dense = [
            keras.layers.Dense(units, activation="relu", dtype=policy, name=f"dense_{number}") for number in (1, 2)
        ]

        def prediction(outputs, deviation, name):
            start = keras.initializers.RandomNormal(stddev=deviation)
            return keras.layers.Dense(outputs, kernel_initializer=start, dtype=_precise(policy), name=name)

        self.logits = prediction(classes + 1, 0.01, "logits")
        self.deltas = prediction(4 * classes, 0.001, "deltas")

    def build(self, input_shape):
        *_, rows, columns, channels = input_shape
        self.dense[0].build((None, None, rows * columns * channels))
        for layer in (self.dense[1], self.logits, self.deltas):
            layer.build((None, None, self.units))
        self.built = True

    def call(self, features):
        number, rows, columns, channels = features.shape[1:]
        x = ops.reshape(features, (-1, number, rows * columns * channels))
        for layer in self.dense:
            x = layer(x)
        return self.logits(x), ops.reshape(self.deltas(x), (-1, number, self.classes, 4))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], self.classes + 1), (*input_shape[:2], self.classes, 4)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "units": self.units}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class MaskHead(keras.layers.Layer):
    """Predicts a mask for each class in each box.

    3x3 convolutions with ReLU, a 2x2 transposed convolution with ReLU that doubles the sides, and a 1x1 convolution.

    Args:
        classes: Int K, the number of classes.
        width: Int, the number of channels of the convolutions.
        convs: Int, the number of 3x3 convolutions.

    Call arguments:
        features: Float tensor `(N, R, S, S, C)`, the features of R boxes.

    Returns:
        Logits `(N, R, 2 * S, 2 * S, K)` float32, of a float64 policy float64.

    Source: Mask R-CNN (arXiv 1703.06870), figure 4.
    """

    def __init__(self, classes, width=256, convs=4, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.width = positive_int("classes", classes), positive_int("width", width)
        self.conv_count = positive_int("convs", convs)
        policy = self.dtype_policy
        options = {"activation": "relu", "kernel_initializer": "he_normal", "dtype": policy}
        self.convs = [
            keras.layers.Conv2D(width, 3, padding="same", name=f"conv_{number}", **options) for number in range(convs)
        ]
        self.double = keras.layers.Conv2DTranspose(width, 2, strides=2, name="double", **options)
        self.logits = keras.layers.Conv2D(
            classes, 1, kernel_initializer="he_normal", dtype=_precise(policy), name="logits"
        )

    def build(self, input_shape):
        shape = (None, *input_shape[2:])
        for layer in (*self.convs, self.double, self.logits):
            layer.build(shape)
            shape = (*shape[:-1], self.width)
        self.built = True

    def call(self, features):
        number, *sides, channels = features.shape[1:]
        x = ops.reshape(features, (-1, *sides, channels))
        for layer in (*self.convs, self.double, self.logits):
            x = layer(x)
        return ops.reshape(x, (-1, number, *x.shape[1:]))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], *(side and 2 * side for side in input_shape[2:4]), self.classes)

    def get_config(self):
        own = {"classes": self.classes, "width": self.width, "convs": self.conv_count}
        return {**super().get_config(), **own}


def _precise(policy):
    """Returns the dtype of predictions: at least float32, also where variables have half precision."""
    return keras.backend.result_type(policy.variable_dtype, "float32")
