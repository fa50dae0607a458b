"""Stem and stages as a functional graph: the part that classifier, backbone and FCMAE share."""

import keras
import numpy as np

from keras_cnv2.arguments import fraction, is_positive_int
from keras_cnv2.images.normalization import Preprocessing
from keras_cnv2.layers import ConvNeXtV2Block, LayerNorm
from keras_cnv2.layers.block import kernel_initializer

STEM_STRIDES = (1, 2, 4)

# Strides that the last stage may have by dilation, in place of its own.
OUTPUT_STRIDES = (8, 16)

# The name of a model's input, and of the convolution that reads it.
INPUT = "images"
STEM = "stem_conv"

# The name of the LayerNorm of a pyramid level, by stage.
NORM = "pyramid_norm_{}"


def total_stride(stem_stride):
    """The stride of the last stage in input pixels."""
    return 8 * stem_stride


def pyramid_layers(depths, stem_stride, norms=False):
    """Returns a dict from pyramid levels to the names of the layers whose outputs they are.

    Level `P{n}` has stride `2 ** n`: P2 to P5 with a stem of stride 4. The layer is the last block of a stage, or with
    `norms` the LayerNorm after it.
    """
    first = 2 - STEM_STRIDES[::-1].index(stem_stride)
    last_blocks = (f"stages_{stage}_{depth - 1}" for stage, depth in enumerate(depths))
    return {f"P{first + stage}": NORM.format(stage) if norms else block for stage, block in enumerate(last_blocks)}


def check_output_stride(output_stride, stem_stride):
    """Raises a `ValueError` unless stages can have this stride, `None` for their own ones."""
    own = total_stride(stem_stride)
    allowed = [stride for stride in OUTPUT_STRIDES if stride < own]
    if output_stride is not None and output_stride not in allowed:
        raise ValueError(
            f"output_stride must be None (the stages' own stride, {own}) or one of {allowed} with "
            f"stem_stride={stem_stride}. Received: output_stride={output_stride!r}"
        )


def check_out_levels(out_levels, levels):
    """Returns the levels that `out_levels` names, in their order, or `None`; raises a `ValueError` for others."""
    if out_levels is None:
        return None
    given = [*out_levels] if isinstance(out_levels, (tuple, list)) else []
    if not given or not all(isinstance(level, str) for level in given) or not {*given} <= {*levels}:
        raise ValueError(f"out_levels must name some of {[*levels]}. Received: out_levels={out_levels!r}")
    return tuple(level for level in levels if level in given)


def check_architecture(depths, dims, stem_stride, drop_path_rate):
    """Raises a `ValueError` for an architecture that cannot be built."""
    for name, values in (("depths", depths), ("dims", dims)):
        if not isinstance(values, (tuple, list)) or len(values) != 4 or not all(map(is_positive_int, values)):
            raise ValueError(f"{name} must be four positive ints, one per stage. Received: {name}={values!r}")
    if stem_stride is not None and stem_stride not in STEM_STRIDES:
        raise ValueError(f"stem_stride must be one of {STEM_STRIDES}. Received: stem_stride={stem_stride!r}")
    fraction("drop_path_rate", drop_path_rate)
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            'keras_cnv2 works in "channels_last" only: call keras.config.set_image_data_format("channels_last"). '
            f"Received: image_data_format={keras.config.image_data_format()!r}"
        )


def policy_of(dtype):
    """Returns the dtype policy of a new model. Raises a `ValueError` for a quantized policy."""
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    if isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy):
        raise ValueError(
            "dtype must be a floating-point policy; to quantize the model, call quantize() once it is built. "
            f"Received: dtype={dtype!r}"
        )
    return policy


def make_input(input_shape, input_tensor, stem_stride, argument="input_shape"):
    """Returns the input of a model: `input_tensor`, checked, or a new `keras.Input`.

    `argument` is what the model calls `input_shape`, for the error message.
    """
    if input_tensor is None:
        shape = (None, None, 3) if input_shape is None else input_shape
    elif keras.backend.is_keras_tensor(input_tensor):
        shape = tuple(input_tensor.shape[1:])
    else:
        raise ValueError(f"input_tensor must be a symbolic Keras tensor. Received: input_tensor={input_tensor!r}")
    smallest = total_stride(stem_stride)
    is_shape = isinstance(shape, (tuple, list)) and len(shape) == 3 and is_positive_int(shape[2])
    if not is_shape or any(s is not None and (not is_positive_int(s) or s < smallest) for s in shape[:2]):
        raise ValueError(
            f"{argument} must be (height, width, channels): height and width None or at least {smallest} "
            f"with stem_stride={stem_stride}, channels a positive int. Received: {argument}={shape}"
        )
    return keras.Input(tuple(shape), name=INPUT) if input_tensor is None else input_tensor


def check_size(images, stem_stride):
    """Raises a `ValueError` for images too small for the last stage. Sizes that are not known yet are not checked."""
    smallest = total_stride(stem_stride)
    if any(side is not None and side < smallest for side in images.shape[1:3]):
        raise ValueError(
            f"images must be at least {smallest} pixels high and wide with stem_stride={stem_stride}. "
            f"Received: images of shape {tuple(images.shape)}"
        )


def preprocessing_layer(include_preprocessing, mean, std):
    """Returns the layer that normalises images, or `None`; the arguments are those of `keras_cnv2.ConvNeXtV2`."""
    return Preprocessing(mean, std, name="preprocessing") if include_preprocessing else None


def stages(images, depths, dims, stem_stride, drop_path_rate, preprocessing, dtype, output_stride=None, count=4):
    """Builds the feature graph.

    Args:
        images: Symbolic tensor `(N, H, W, channels)`.
        depths, dims, stem_stride, drop_path_rate: As in `keras_cnv2.ConvNeXtV2`.
        preprocessing: Layer for the images, or `None`.
        dtype: Dtype policy of the layers, except for the preprocessing, which is always in float32.
        output_stride: Optional int, the largest stride. Stages that would exceed it have dilated convolutions instead.
        count: Int, how many stages to build.

    Returns:
        List of the stages' outputs, `(N, H / s, W / s, dim)`, where `s` is the stem's stride times 1, 2, 4, 8, but at
        most `output_stride`.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.3; A ConvNet for the 2020s (arXiv 2201.03545), section 2. The
        dilations are those of timm's implementation.
    """

    def norm(name):
        return LayerNorm(dtype=dtype, name=name)

    def patchify(dim, stride, name):
        # Kernel size and stride are equal, so windows do not overlap: no patch of FCMAE sees pixels of another patch.
        return keras.layers.Conv2D(
            dim, stride, strides=stride, kernel_initializer=kernel_initializer(), dtype=dtype, name=name
        )

    def without_stride(dim, dilation, name):
        return keras.layers.Conv2D(
            dim,
            2,
            padding="same",
            dilation_rate=dilation,
            kernel_initializer=kernel_initializer(),
            dtype=dtype,
            name=name,
        )

    drop_rates = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
    x = preprocessing(images) if preprocessing else images
    x = norm("stem_norm")(patchify(dims[0], stem_stride, STEM)(x))
    stride, dilation = stem_stride, 1
    outputs = []
    for stage, (depth, dim) in enumerate(zip(depths[:count], dims)):
        if stage > 0:
            x, name = norm(f"downsample_{stage}_norm")(x), f"downsample_{stage}_conv"
            if stride == output_stride:
                x, dilation = without_stride(dim, dilation, name)(x), 2 * dilation
            else:
                x, stride = patchify(dim, 2, name)(x), 2 * stride
        for block in range(depth):
            name = f"stages_{stage}_{block}"
            x = ConvNeXtV2Block(dim, next(drop_rates), dilation=dilation, dtype=dtype, name=name)(x)
        outputs.append(x)
    return outputs


def normalized_levels(outputs, dtype):
    """Applies a LayerNorm of its own to each stage's output; `outputs` is a dict {number of the stage: output}."""
    return {stage: LayerNorm(dtype=dtype, name=NORM.format(stage))(x) for stage, x in outputs.items()}


def source_inputs(images):
    """The inputs of a functional model on `images`: `images` itself, or the input(s) from which it is computed."""
    sources = keras.utils.get_source_inputs(images)
    return sources[0] if len(sources) == 1 else sources
