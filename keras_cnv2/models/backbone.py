import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_cnv2.checkpoints.source import fetch, find_for, known_of, load_weights, statistics_for, stem_stride_for
from keras_cnv2.images.normalization import check_statistics
from keras_cnv2.keras_internals import set_policy
from keras_cnv2.models.configuration import architecture_config, from_architecture_config
from keras_cnv2.models.stages import (
    check_architecture,
    check_out_levels,
    check_output_stride,
    check_size,
    make_input,
    normalized_levels,
    policy_of,
    preprocessing_layer,
    pyramid_layers,
    source_inputs,
    stages,
)
from keras_cnv2.sizes import get_size


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ConvNeXtV2Backbone(keras.Model):
    """The stem and stages of ConvNeXt V2 as a functional model, for use with other heads.

    The output is the feature map of the last stage. The feature maps of all four stages are in `pyramid_outputs`
    (level -> tensor, the convention of KerasHub) and `pyramid_level_inputs` (level -> layer name, the convention of
    KerasCV). Level `P{n}` has stride `2 ** n`: P2 to P5 with `stem_stride` 4, P1 to P4 with 2, P0 to P3 with 1.

    Heads for segmentation and detection train better if the values of all levels have the same scale. With
    `pyramid_norms` each level ends in a LayerNorm of its own, as in the paper's experiments, and the output is a dict
    of all levels. Published weights do not include these norms, which then keep their initial values.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("atto", weights="fcmae_ft_in1k", input_shape=(224, 224, 3))
    backbone.pyramid_outputs["P2"]  # (None, 56, 56, 40)
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)  # (None, 320)
    model = keras.Model(backbone.input, keras.layers.Dense(2)(x))
    ```

    Args:
        size: Name of a published size, "atto" to "huge". Give either this, or `depths` and `dims`.
        depths: Four ints, the number of blocks in each stage.
        dims: Four ints, the number of channels in each stage.
        weights, include_preprocessing, mean, std, input_shape, input_tensor, stem_stride, drop_path_rate, dtype, name:
            As in `keras_cnv2.ConvNeXtV2`.
        pyramid_norms: Bool, whether each level ends in a LayerNorm (epsilon 1e-6), `pyramid_norm_0` to
            `pyramid_norm_3` by stage.
        output_stride: 8 or 16, the largest stride of feature maps, for finer maps from the same weights: stages that
            would exceed it have dilated convolutions instead of a downsampling, as in timm. Levels keep their names. By
            default the stages' own strides, up to `8 * stem_stride`.
        out_levels: Optional sequence of levels, such as `("P3", "P4")`. Then the output is a dict of these levels, and
            stages above the highest one are left out, also when weights are loaded.

    Call arguments:
        images: Tensor `(N, height, width, channels)`.

    Returns:
        The feature map of the last stage, `(N, height / (8 * stem_stride), width / (8 * stem_stride), dims[3])`; with
        `pyramid_norms` a dict of all levels, with `out_levels` a dict of these.

    Raises:
        ValueError: If an argument is out of range, or weights cannot be found, downloaded, read or loaded
            (`CheckpointError`). The message says what was received and what is allowed.
        FileNotFoundError: If `weights` is a path without a file.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.3. The pyramid norms are those of the detection and segmentation
        backbones in ConvNeXt's published code (arXiv 2201.03545, section 3.3).
    """

    pretrained: Mapping[str, str] | None = None

    def __init__(
        self,
        size: str | None = None,
        depths: Sequence[int] | None = None,
        dims: Sequence[int] | None = None,
        weights: str | os.PathLike | None = None,
        include_preprocessing: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_shape: Sequence[int | None] | None = (None, None, 3),
        input_tensor: Any = None,
        stem_stride: int | None = None,
        drop_path_rate: float = 0.0,
        pyramid_norms: bool = False,
        output_stride: int | None = None,
        out_levels: Sequence[str] | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ):
        given = {"size": size, "depths": depths, "dims": dims}
        if (size is None) == (depths is None) or (depths is None) != (dims is None):
            raise ValueError(f"Give either size, or depths and dims. Received: {given}")
        if size is not None:
            depths, dims = get_size(size).depths, get_size(size).dims
        check_architecture(depths, dims, stem_stride, drop_path_rate)
        found = find_for(weights, depths, dims)
        stem_stride = stem_stride_for(found, stem_stride)
        check_output_stride(output_stride, stem_stride)
        source = found and fetch(found)
        policy = policy_of(dtype)
        # NumPy ints become Python ints: Keras does not accept them.
        depths, dims, stem_stride = tuple(map(int, depths)), tuple(map(int, dims)), int(stem_stride)
        images = make_input(input_shape, input_tensor, stem_stride)
        mean, std = check_statistics(images.shape[-1], *statistics_for(known_of(source), images.shape[-1], mean, std))
        preprocessing = preprocessing_layer(include_preprocessing, mean, std)
        layers = pyramid_layers(depths, stem_stride, pyramid_norms)
        out_levels = check_out_levels(out_levels, layers)
        numbers = {level: stage for stage, level in enumerate(layers) if level in (out_levels or layers)}
        settings = {"output_stride": output_stride, "count": max(numbers.values()) + 1}
        outputs = stages(images, depths, dims, stem_stride, drop_path_rate, preprocessing, policy, **settings)
        chosen = {stage: outputs[stage] for stage in numbers.values()}
        if pyramid_norms:
            chosen = normalized_levels(chosen, policy)
        levels = {level: chosen[stage] for level, stage in numbers.items()}
        is_dict = pyramid_norms or out_levels
        super().__init__(inputs=source_inputs(images), outputs=levels if is_dict else outputs[-1], name=name)

        set_policy(self, policy)
        self.images = images
        self.size = size
        self.depths = depths
        self.dims = dims
        self.include_preprocessing = include_preprocessing
        self.mean = mean
        self.std = std
        self.stem_stride = stem_stride
        self.drop_path_rate = drop_path_rate
        self.pyramid_norms = bool(pyramid_norms)
        self.output_stride = output_stride
        self.out_levels = out_levels
        self.pyramid_level_inputs = {level: layers[level] for level in levels}
        self._levels = levels
        if source is not None:
            load_weights(self, source)

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """The feature maps by level, in a new dict: Keras's own kind of dict cannot be the output of a JAX model."""
        return dict(self._levels)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        if hasattr(inputs, "shape"):  # false for a model that was built on several inputs
            check_size(inputs, self.stem_stride)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def get_config(self) -> dict[str, Any]:
        architecture = {"depths": self.depths, "dims": self.dims} if self.size is None else {"size": self.size}
        # Older releases do not know these.
        new = {name: getattr(self, name) for name in ("output_stride", "out_levels") if getattr(self, name) is not None}
        return {**architecture_config(self), **architecture, "pyramid_norms": self.pyramid_norms, **new}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return from_architecture_config(cls, config, custom_objects)
