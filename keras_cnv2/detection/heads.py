"""The feature pyramid and the heads of RetinaNet. KerasCV's are fixed to 256 channels and three convolutions."""

import math

import keras
from keras import ops

from keras_cnv2.arguments import positive_int

# Initial probability of every class. With 0.5, the loss of the many background anchors would dominate that of objects.
PRIOR = 0.01


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Pyramid(keras.layers.Layer):
    """Feature pyramid: P3 to P5 from the backbone's levels C3 to C5 and the levels above, P6 and P7 from C5.

    ```
    P5 = conv3(conv1(C5))         P4 = conv3(conv1(C4) + up(M5))         P3 = conv3(conv1(C3) + up(M4))
    P6 = conv3/2(C5)              P7 = conv3/2(relu(P6))
    ```

    `conv1` and `conv3` are 1x1 and 3x3 convolutions, `conv3/2` has stride 2. `M5` and `M4` are the inputs of `conv3` at
    P5 and P4. `up` repeats each position twice along each side.

    Args:
        width: Int, the number of channels of every level.

    Call arguments:
        features: {"P3", "P4", "P5": float tensors `(N, H / stride, W / stride, C)`}, with strides 8, 16 and 32.

    Returns:
        List of five float tensors `(N, ceil(H / stride), ceil(W / stride), width)`, with strides 8 to 128.

    Source: Feature Pyramid Networks (arXiv 1612.03144), section 3; Focal Loss (arXiv 1708.02002), section 4.
    """

    def __init__(self, width=256, **kwargs):
        super().__init__(**kwargs)
        self.width = positive_int("width", width)

        def convolution(kernel, stride, name):
            return keras.layers.Conv2D(width, kernel, stride, padding="same", dtype=self.dtype_policy, name=name)

        self.laterals = [convolution(1, 1, f"lateral_{level}") for level in (3, 4, 5)]
        self.outputs = [convolution(3, 1, f"output_{level}") for level in (3, 4, 5)]
        self.down = [convolution(3, 2, f"output_{level}") for level in (6, 7)]

    def build(self, input_shape):
        for level, lateral, output in zip(("P3", "P4", "P5"), self.laterals, self.outputs):
            lateral.build(input_shape[level])
            output.build((None, None, None, self.width))
        self.down[0].build(input_shape["P5"])
        self.down[1].build((None, None, None, self.width))
        self.built = True

    def call(self, features):
        c3, c4, c5 = (features[level] for level in ("P3", "P4", "P5"))
        m3, m4, m5 = (lateral(x) for lateral, x in zip(self.laterals, (c3, c4, c5)))
        m4 = m4 + twice(m5)
        m3 = m3 + twice(m4)
        p6 = self.down[0](c5)
        return [*(output(x) for output, x in zip(self.outputs, (m3, m4, m5))), p6, self.down[1](ops.relu(p6))]

    def compute_output_shape(self, input_shape):
        def halved(shape):
            return (shape[0], *(side and math.ceil(side / 2) for side in shape[1:3]), self.width)

        *first, p5 = ((*input_shape[level][:3], self.width) for level in ("P3", "P4", "P5"))
        p6 = halved(p5)
        return [*first, p5, p6, halved(p6)]

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class PredictionHead(keras.layers.Layer):
    """Convolutions that predict values at each position of a feature map. All levels share one head.

    Args:
        outputs: Int, the number of values predicted at a position.
        width: Int, the number of channels of the hidden convolutions.
        convs: Int, the number of 3x3 convolutions with ReLU before the last one, which predicts.
        prior: Optional float in (0, 1). Before training, predictions are around the logit of this probability; by
            default around 0.

    Call arguments:
        features: Float tensor `(N, H, W, C)`.

    Returns:
        A tensor `(N, H, W, outputs)`, of the policy's variable dtype: float32 under the mixed policies.

    Source: Focal Loss (arXiv 1708.02002), sections 3.3 and 4.1, "Initialization".
    """

    def __init__(self, outputs, width=256, convs=4, prior=None, **kwargs):
        super().__init__(**kwargs)
        self.output_count = positive_int("outputs", outputs)
        self.width = positive_int("width", width)
        self.conv_count = positive_int("convs", convs)
        self.prior = prior
        bias = 0.0 if prior is None else -math.log((1 - prior) / prior)

        def convolution(filters, name, **options):
            kernel = keras.initializers.RandomNormal(stddev=0.01)
            return keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer=kernel, name=name, **options)

        policy = self.dtype_policy
        self.convs = [convolution(width, f"conv_{i}", activation="relu", dtype=policy) for i in range(convs)]
        # Half precision would round boxes by several pixels, and round large logits.
        self.prediction = convolution(
            outputs, "prediction", bias_initializer=keras.initializers.Constant(bias), dtype=policy.variable_dtype
        )

    def build(self, input_shape):
        for layer in (*self.convs, self.prediction):
            layer.build(input_shape)
            input_shape = (*input_shape[:-1], self.width)
        self.built = True

    def call(self, features):
        for conv in self.convs:
            features = conv(features)
        return self.prediction(features)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.output_count)

    def compute_output_spec(self, features):
        return keras.KerasTensor(self.compute_output_shape(features.shape), dtype=self.prediction.compute_dtype)

    def get_config(self):
        own = {"outputs": self.output_count, "convs": self.conv_count, "width": self.width, "prior": self.prior}
        return {**super().get_config(), **own}


def twice(x):
    """Upsamples by 2: repeats each position twice along each side."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
