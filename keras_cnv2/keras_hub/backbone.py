from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_cnv2.checkpoints import load_checkpoint, state_dict
from keras_cnv2.models import backbone, classifier
from keras_cnv2.models.stages import (
    check_architecture,
    check_output_stride,
    check_size,
    make_input,
    normalized_levels,
    policy_of,
    pyramid_layers,
    stages,
)
from keras_cnv2.optional_packages import import_keras_hub

keras_hub = import_keras_hub()

# Classes of this room have the names that KerasHub's conventions give them. One is taken in "keras_cnv2".
PACKAGE = "keras_cnv2.keras_hub"


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConvNeXtV2Backbone(keras_hub.models.FeaturePyramidBackbone):
    """The stem and stages of ConvNeXt V2 as a backbone of KerasHub.

    It is saved, loaded and uploaded as KerasHub's own backbones are, and the tasks of KerasHub that take a backbone
    with `pyramid_outputs` take it: `DeepLabV3Backbone` and `RetinaNetBackbone`. As in KerasHub, images are normalised
    outside of it, by `ConvNeXtV2ImageConverter`.

    The layers have the names of `keras_cnv2.ConvNeXtV2Backbone`, so `keras_cnv2.load_checkpoint` and
    `keras_cnv2.save_checkpoint` read and write its weights in all formats.

    ```python
    from keras_cnv2.keras_hub import ConvNeXtV2Backbone

    backbone = ConvNeXtV2Backbone(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320))
    features = backbone(keras.ops.zeros((1, 224, 224, 3)))  # (1, 7, 7, 320)
    backbone.pyramid_outputs["P2"]  # (None, None, None, 40)
    backbone.save_to_preset("atto")
    backbone = ConvNeXtV2Backbone.from_preset("atto")
    ```

    Args:
        depths: Four ints, the number of blocks in each stage.
        dims: Four ints, the number of channels in each stage.
        image_shape: (height, width, channels); height and width may be `None` (any size).
        stem_stride: Stride and kernel size of the stem: 4, or 2 or 1 for small images.
        drop_path_rate: Float in `[0, 1)`, the last block's rate of stochastic depth. The rates rise linearly from 0 in
            the first block.
        pyramid_norms: Bool, whether each pyramid level ends in a LayerNorm, as is usual for segmentation and detection.
            The output is then a dict of all levels, which an image classifier does not take.
        output_stride: Optional int, the largest stride of a level: stages that would exceed it have dilated
            convolutions instead, as in `keras_cnv2.ConvNeXtV2Backbone`.
        dtype: Dtype policy, by default the global one.
        **kwargs: `name` and `trainable`.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, normalised.

    Returns:
        The feature map of the last stage, `(N, height / (8 * stem_stride), width / (8 * stem_stride), dims[3])`; with
        `pyramid_norms` a dict of all levels.

    Raises:
        ValueError: If an argument is out of range.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.3.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        image_shape: Sequence[int | None] = (None, None, 3),
        stem_stride: int = 4,
        drop_path_rate: float = 0.0,
        pyramid_norms: bool = False,
        output_stride: int | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs: Any,
    ):
        check_architecture(depths, dims, stem_stride, drop_path_rate)
        check_output_stride(output_stride, stem_stride)
        policy = policy_of(dtype)
        # NumPy ints become Python ints: Keras does not accept them.
        depths, dims, stem_stride = tuple(map(int, depths)), tuple(map(int, dims)), int(stem_stride)
        images = make_input(image_shape, None, stem_stride, "image_shape")
        outputs = dict(
            enumerate(stages(images, depths, dims, stem_stride, drop_path_rate, None, policy, output_stride))
        )
        if pyramid_norms:
            outputs = normalized_levels(outputs, policy)
        levels = dict(zip(pyramid_layers(depths, stem_stride, pyramid_norms), outputs.values()))
        super().__init__(inputs=images, outputs=levels if pyramid_norms else outputs[3], dtype=policy, **kwargs)

        self.depths = depths
        self.dims = dims
        self.image_shape = tuple(image_shape)
        self.stem_stride = stem_stride
        self.drop_path_rate = drop_path_rate
        self.pyramid_norms = bool(pyramid_norms)
        self.output_stride = output_stride
        self._levels = levels

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """The feature maps by level, in a new dict: Keras's own kind of dict cannot be the output of a JAX model."""
        return dict(self._levels)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        check_size(inputs, self.stem_stride)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def default_lora_layer_names(self) -> list[str]:
        """The names of the layers that `enable_lora` changes by default: the dense layers of each block."""
        return ["pwconv1", "pwconv2"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depths": self.depths,
            "dims": self.dims,
            "image_shape": self.image_shape,
            "stem_stride": self.stem_stride,
            "drop_path_rate": self.drop_path_rate,
            "pyramid_norms": self.pyramid_norms,
            "output_stride": self.output_stride,
        }

    @classmethod
    def from_model(cls, model: keras.Model, **kwargs: Any) -> Self:
        """Builds the backbone of a model of this package, with its weights.

        ```python
        encoder = keras_cnv2.ConvNeXtV2Atto(weights="fcmae_ft_in1k", include_preprocessing=False)
        backbone = keras_cnv2.keras_hub.ConvNeXtV2Backbone.from_model(encoder)
        ```

        Args:
            model: A `keras_cnv2.ConvNeXtV2` or `keras_cnv2.ConvNeXtV2Backbone`. Whether it includes preprocessing makes
                no difference: this backbone takes normalised images.
            **kwargs: Arguments of the class that differ from the model's own: `image_shape`, `drop_path_rate`, `dtype`,
                `name`, `trainable`.

        Raises:
            ValueError: If `model` is another model, is quantized, or was built with `out_levels`.
        """
        check_model(model, (classifier.ConvNeXtV2, backbone.ConvNeXtV2Backbone))
        if getattr(model, "out_levels", None):
            raise ValueError(
                "from_model takes a backbone with all of its levels, built without out_levels. "
                f"Received: model={model.name!r} with out_levels={model.out_levels!r}"
            )
        own = {
            "depths": model.depths,
            "dims": model.dims,
            "image_shape": tuple(model.images.shape[1:]),
            "stem_stride": model.stem_stride,
            "drop_path_rate": model.drop_path_rate,
            "pyramid_norms": getattr(model, "pyramid_norms", False),
            "output_stride": getattr(model, "output_stride", None),
            "dtype": model.dtype_policy,
        }
        made = cls(**{**own, **kwargs})
        load_checkpoint(made, state_dict(model))
        return made


def check_model(model, kinds):
    """Raises a `ValueError` unless `model` is one of these kinds of models of this package."""
    if not isinstance(model, kinds):
        names = " or ".join(f"keras_cnv2.{kind.__name__}" for kind in kinds)
        raise ValueError(f"from_model takes a {names}. Received: model={model!r}")
