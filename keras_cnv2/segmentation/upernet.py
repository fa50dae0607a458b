from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_cnv2.arguments import fraction, is_positive_int, number, positive_int
from keras_cnv2.distribute import replicas
from keras_cnv2.keras_internals import set_policy
from keras_cnv2.models.classifier import check_head
from keras_cnv2.models.configuration import from_nested_config, layers_config
from keras_cnv2.segmentation.resample import BinPooling, ResizeLike

# The head uses at most this many levels of the backbone.
LEVELS = 4


@keras.saving.register_keras_serializable(package="keras_cnv2")
class UPerNet(keras.Model):
    """UPerNet on a backbone, a functional model; the segmentation head of the ConvNeXt V2 paper.

    The last level is pooled to grids of the sides `pool_scales`; each grid is projected, resized back and concatenated
    with the level. A feature pyramid then adds coarse levels to finer ones. All levels are resized to the finest one
    and fused to classify pixels. During training, an auxiliary head classifies pixels from the second-to-last level.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("base", weights="fcmae_ft_in1k", pyramid_norms=True, drop_path_rate=0.3)
    model = keras_cnv2.segmentation.UPerNet(backbone, classes=150)
    model.compile(
        optimizer,
        loss=keras_cnv2.segmentation.PixelCrossentropy(ignore_label=255),
        metrics=[keras_cnv2.segmentation.ConfusionMatrix(classes=150)],
    )
    model.fit(images, labels)  # labels (N, height, width), whole numbers
    ```

    The loss given to `compile` is applied to both heads: during training it is
    `loss(logits) + auxiliary_weight * loss(auxiliary)`. Metrics, `evaluate` and `predict` use the logits of the main
    head only. Convolutions before a batch normalisation are initialised with He normal by fan-out, classifiers with a
    normal distribution of standard deviation 0.01. Batch normalisation has epsilon 1e-5 and momentum 0.9 (0.1 in
    PyTorch's convention). If the model is built under a `tf.distribute` strategy, it is synchronised over all replicas.

    Args:
        backbone: A `keras_cnv2.ConvNeXtV2Backbone`, best with `pyramid_norms`, or another functional model with
            `pyramid_outputs` (level -> tensor) or `pyramid_level_inputs` (level -> layer name), such as those of
            KerasHub and KerasCV. Its last four levels are used; its layers become layers of this model.
        classes: Int, the number of classes. With one class, label 1 is the class, label 0 the background, and the
            logits are those of a sigmoid. The losses, metrics and exports of this package treat them accordingly.
        width: Int, the number of channels of the head.
        auxiliary_width: Int, the number of channels of the auxiliary head.
        pool_scales: List or tuple of ints, the sides of the grids to which the last level is pooled.
        dropout: Float in `[0, 1)`, the rate at which whole channels are dropped before the classifiers.
        auxiliary_weight: Float, at least 0, the weight of the auxiliary head's loss.
        class_names: Optional list of `classes` strings, saved with the model.
        dtype: Dtype policy of the head, by default the backbone's. Logits are float32, or float64 for float64 policies.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, in the range that the backbone takes.
        training: Bool, whether to return the logits of both heads and apply dropout.

    Returns:
        Logits `(N, height, width, classes)`. With `training=True` a dict of two such tensors, "logits" and "auxiliary".

    Raises:
        ValueError: If an argument is out of range or the backbone has no pyramid.

    Source: Unified Perceptual Parsing (arXiv 1807.10221), section 3.1; ConvNeXt V2 (arXiv 2301.00808), appendix A.1.
    """

    def __init__(
        self,
        backbone: keras.Model,
        classes: int,
        width: int = 512,
        auxiliary_width: int = 256,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        auxiliary_weight: float = 0.4,
        class_names: Sequence[str] | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ):
        for argument, value in (("width", width), ("auxiliary_width", auxiliary_width)):
            positive_int(argument, value)
        _check(pool_scales, dropout, auxiliary_weight, class_names, classes)
        levels = last_levels(backbone)
        images = backbone.input
        policy = keras.dtype_policies.get(dtype or backbone.dtype_policy)
        pooled = _pyramid_pooling(levels[-1], pool_scales, width, policy)
        fused = _feature_pyramid([*levels[:-1], pooled], width, policy)
        logits = _classify(fused, images, classes, dropout, policy, "classifier", "logits")
        auxiliary = _convolve(levels[-2], auxiliary_width, 3, policy, "auxiliary")
        auxiliary = _classify(auxiliary, images, classes, dropout, policy, "auxiliary_classifier", "auxiliary")
        super().__init__(inputs=images, outputs={"logits": logits, "auxiliary": auxiliary}, name=name)

        # Losses and metrics are applied to one output at a time; Keras 3.10 would name them after the other one.
        self.output_names = ["logits"]
        set_policy(self, policy)
        self.backbone = backbone
        self.classes = int(classes)
        self.width = int(width)
        self.auxiliary_width = int(auxiliary_width)
        self.pool_scales = tuple(map(int, pool_scales))
        self.dropout = dropout
        self.auxiliary_weight = auxiliary_weight
        self.class_names = None if class_names is None else tuple(class_names)
        # The bound method, because Keras would save a model in an attribute as another part of this model.
        self._inference = self.inference_graph().call

    def inference_graph(self) -> keras.Model:
        """Returns the functional model from images to logits, with the same layers but without the auxiliary head."""
        return keras.Model(self.input, self.output["logits"], name=self.name)

    def call(self, images: Any, training: bool | None = None, mask: Any = None) -> Any:
        if training:
            return super().call(images, training=True)
        return self._inference(images, training=training)

    def compute_output_spec(self, images: Any, training: bool | None = None, mask: Any = None) -> Any:
        outputs = super().compute_output_spec(images)
        return outputs if training else outputs["logits"]

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.classes)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if not isinstance(y_pred, dict):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        main, auxiliary = (
            super(UPerNet, self).compute_loss(x, y, y_pred[head], sample_weight, training)
            for head in ("logits", "auxiliary")
        )
        # Keras adds the regularisation losses, divided by the number of replicas, to both losses. Count them once.
        _, count = replicas.replica()
        regularizers = sum(keras.ops.sum(loss) for loss in self.losses) / count
        return main + self.auxiliary_weight * (auxiliary - regularizers)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        logits = y_pred["logits"] if isinstance(y_pred, dict) else y_pred
        return super().compute_metrics(x, y, logits, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "classes": self.classes,
            "width": self.width,
            "auxiliary_width": self.auxiliary_width,
            "pool_scales": self.pool_scales,
            "dropout": self.dropout,
            "auxiliary_weight": self.auxiliary_weight,
            "class_names": self.class_names,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            **layers_config(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return from_nested_config(cls, config, ("backbone",), custom_objects)


def last_levels(backbone):
    """Returns the feature maps of the last levels of a backbone, at most four, the finest first.

    Raises:
        ValueError: If the backbone is not a functional model with at least two levels.
    """
    levels = getattr(backbone, "pyramid_outputs", None) or {}
    if not levels and isinstance(backbone, keras.Function):
        names = getattr(backbone, "pyramid_level_inputs", None) or {}
        levels = {level: backbone.get_layer(name).output for level, name in names.items()}
    if not isinstance(backbone, keras.Function) or len(levels) < 2:
        raise ValueError(
            "The backbone must be a functional model with at least two levels in pyramid_outputs or "
            f"pyramid_level_inputs. Received: backbone={backbone!r} with levels {[*levels]}"
        )
    return [levels[level] for level in sorted(levels, key=lambda level: int(level[1:]))[-LEVELS:]]


def _pyramid_pooling(x, pool_scales, width, dtype):
    """Pyramid pooling module: adds context of several scales to the last level.

    Source: PSPNet (arXiv 1612.01105), section 3.2.
    """
    parts = [x]
    for scale in pool_scales:
        pooled = BinPooling(scale, dtype=dtype, name=f"pool_{scale}")(x)
        pooled = _convolve(pooled, width, 1, dtype, f"pool_{scale}")
        parts.append(ResizeLike(dtype=dtype, name=f"pool_{scale}_resize")(pooled, x))
    parts = keras.layers.Concatenate(dtype=dtype, name="pool_concat")(parts)
    return _convolve(parts, width, 3, dtype, "bottleneck")


def _feature_pyramid(levels, width, dtype):
    """Fuses all levels in one feature map of the finest level's size. The last level must have `width` channels.

    Source: Feature Pyramid Networks (arXiv 1612.03144), section 3.
    """
    *finer, x = levels
    outputs = [x]
    for stage, level in reversed([*enumerate(finer)]):
        lateral = _convolve(level, width, 1, dtype, f"lateral_{stage}")
        above = ResizeLike(dtype=dtype, name=f"top_down_{stage}_resize")(x, lateral)
        x = keras.layers.Add(dtype=dtype, name=f"top_down_{stage}")([lateral, above])
        outputs.insert(0, _convolve(x, width, 3, dtype, f"pyramid_{stage}"))
    finest, *coarser = outputs
    resized = [
        ResizeLike(dtype=dtype, name=f"pyramid_{stage}_resize")(output, finest)
        for stage, output in enumerate(coarser, 1)
    ]
    return _convolve(
        keras.layers.Concatenate(dtype=dtype, name="fusion_concat")([finest, *resized]), width, 3, dtype, "fusion"
    )


def _convolve(x, width, kernel_size, dtype, name):
    """Applies a convolution, batch normalisation and ReLU."""
    x = keras.layers.Conv2D(
        width,
        kernel_size,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        dtype=dtype,
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=_built_for_replicas(), dtype=dtype, name=f"{name}_norm"
    )(x)
    return keras.layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)


def _built_for_replicas():
    """Whether the model is built in the scope of a `tf.distribute` strategy with several replicas.

    Only then batch normalisation is synchronised: Keras supports it with TensorFlow only, and one device needs none.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def _classify(x, images, classes, dropout, dtype, name, output_name):
    """Returns the logits of all pixels at the size of `images`."""
    x = keras.layers.SpatialDropout2D(dropout, dtype=dtype, name=f"{name}_dropout")(x)
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    x = keras.layers.Conv2D(classes, 1, kernel_initializer=initializer, dtype=dtype, name=name)(x)
    full = keras.backend.result_type(dtype.variable_dtype, "float32")
    return ResizeLike(dtype=full, name=output_name)(x, images)


def _check(pool_scales, dropout, auxiliary_weight, class_names, classes):
    """Raises a `ValueError` if an argument is out of range."""
    if not isinstance(pool_scales, (tuple, list)) or not all(map(is_positive_int, pool_scales)):
        raise ValueError(f"pool_scales must be positive ints. Received: pool_scales={pool_scales!r}")
    if len({*pool_scales}) != len(pool_scales):
        raise ValueError(f"pool_scales must differ from each other. Received: pool_scales={pool_scales!r}")
    fraction("dropout", dropout)
    number("auxiliary_weight", auxiliary_weight, "a number from 0 on", lambda x: 0 <= x < float("inf"))
    check_head(True, classes, None, class_names)
