"""The classifiers: stem -> stages -> head."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras

from keras_cnv2.arguments import is_positive_int, positive_int
from keras_cnv2.checkpoints.metadata import EPSILON, MAX_IMAGE_SIZE, is_epsilon
from keras_cnv2.checkpoints.source import fetch, find_for, known_of, load_weights, statistics_for, stem_stride_for
from keras_cnv2.images.normalization import check_statistics
from keras_cnv2.images.pictures import check_resize
from keras_cnv2.keras_internals import set_policy
from keras_cnv2.layers.block import kernel_initializer
from keras_cnv2.layers.settings import SETTINGS
from keras_cnv2.models.configuration import architecture_config, from_architecture_config
from keras_cnv2.models.stages import (
    check_architecture,
    check_size,
    make_input,
    policy_of,
    preprocessing_layer,
    source_inputs,
    stages,
    total_stride,
)
from keras_cnv2.sizes import get_size

# The default number of classes. With any other number, the head of published weights need not fit.
PUBLISHED_CLASSES = 1000
# The name of the last layer.
HEAD = "head"
POOLINGS = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ConvNeXtV2(keras.Model):
    """ConvNeXt V2 of any size, a functional Keras model.

    `ConvNeXtV2Atto` to `ConvNeXtV2Huge` build the published sizes.

    ```python
    model = keras_cnv2.ConvNeXtV2(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), classes=10)
    model.compile(optimizer="adamw", loss="sparse_categorical_crossentropy")
    model.fit(images, labels)  # images in 0..255
    ```

    Args:
        depths: Four ints, the number of blocks in each stage.
        dims: Four ints, the number of channels in each stage.
        weights: `None` for random initial values; or the tag of published weights of this size, which are downloaded
            once: "fcmae", "fcmae_ft_in1k" (or "imagenet"), "fcmae_ft_in22k_in1k", the latter also with "_384" or
            "_512", optionally followed by "@" and a commit, tag or branch of the hub's repository; or a repository or
            folder as in `keras_cnv2.from_pretrained`; or the path of a file that `keras_cnv2.load_checkpoint` reads.
            The attribute `pretrained` holds the origin of downloaded weights, a dict of "repository", "file", "commit"
            and "sha256". If `classes` is neither 1000 nor the number of classes of the weights, the head keeps its
            initial values. For channels other than three, see `load_checkpoint`.
        include_top: Bool, whether the model ends in pooling, LayerNorm and a dense layer of `classes` units.
        classes: Int, the number of classes, with `include_top`. By default that of published `weights` or of the
            configuration beside them, else 1000.
        classifier_activation: Activation of the top: "softmax", `None` for logits, or any other Keras activation. For
            one class give "sigmoid" or `None`: the softmax of one logit is always 1.
        pooling: Output without the top: `None` for the feature map of the last stage, `(N, H / s, W / s, dims[3])` with
            `s = 8 * stem_stride`; "avg" or "max" for pooled features after a LayerNorm, `(N, dims[3])`.
        class_names: Optional list of `classes` strings, saved with the model. By default those of the weights.
        image_size: Optional int, side in pixels of the square images that evaluation and prediction make of image
            files. By default that of a fixed square `input_shape`, or that of the weights. Saved with the model.
        resize: Optional "crop", "squash" or a float, the fraction that a crop keeps: how image files are resized to
            `image_size`, see `keras_cnv2.load_image`. By default that of the weights, if the model has the image size
            of the weights. Saved with the model.
        include_preprocessing: Bool. If true, the model takes RGB images in 0..255, of any dtype; otherwise images that
            are already normalised, see `keras_cnv2.preprocess_input`.
        mean, std: Optional sequences of floats, one per channel, in units of 0..1: the mean and standard deviation with
            which images are normalised. By default those of the weights, else ImageNet's for three channels and their
            averages for any other number. They are kept, as attributes and in the configuration, if
            `include_preprocessing` is false, too: commands and exports then normalise image files with them.
        input_shape: (height, width, channels); height and width may be `None` (any size). If the stride does not divide
            a size, the size of the feature map is rounded down, as in the official code.
        input_tensor: Optional symbolic Keras tensor to build on, in place of `input_shape`.
        stem_stride: Stride and kernel size of the stem: 4, or 2 or 1 for small images. By default that of published
            `weights` or of the configuration beside them, else 4.
        drop_path_rate: Float in `[0, 1)`, the last block's rate of stochastic depth. The rates rise linearly from 0 in
            the first block.
        head_init_scale: Float, factor on the initial values of the top's dense layer. The paper uses 0.001 for
            fine-tuning; leave it at 1 when training from scratch.
        norm_epsilon: Float, the epsilon of the LayerNorm after pooling. By default that of the weights, else 1e-6; that
            of models trained with transformers is 1e-12.
        dtype: Dtype policy, by default the global one. The head computes in its variable dtype, so outputs are
            float32 under the mixed policies.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`.

    Returns:
        Class scores `(N, classes)`, or features as described under `pooling`.

    Raises:
        ValueError: If an argument is out of range, or weights cannot be found, downloaded, read or loaded
            (`CheckpointError`). The message says what was received and what is allowed.
        FileNotFoundError: If `weights` is a path without a file.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.3.
    """

    pretrained: Mapping[str, str] | None = None

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        weights: str | os.PathLike | None = None,
        include_top: bool = True,
        classes: int | None = None,
        classifier_activation: str | Callable | None = "softmax",
        pooling: str | None = None,
        class_names: Sequence[str] | None = None,
        image_size: int | None = None,
        resize: str | float | None = None,
        include_preprocessing: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_shape: Sequence[int | None] | None = (None, None, 3),
        input_tensor: Any = None,
        stem_stride: int | None = None,
        drop_path_rate: float = 0.0,
        head_init_scale: float = 1.0,
        norm_epsilon: float | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ):
        check_architecture(depths, dims, stem_stride, drop_path_rate)
        found = find_for(weights, depths, dims)
        stem_stride = stem_stride_for(found, stem_stride)
        own_head = classes not in (None, PUBLISHED_CLASSES)
        classes = classes_for(found, classes)
        check_head(include_top, classes, pooling, class_names)
        classes = int(classes)
        if include_top:
            check_activation(classes, classifier_activation)
        check_resize(resize)
        source = found and fetch(found)
        known = known_of(source)
        norm_epsilon = epsilon_for(known, norm_epsilon)
        policy = policy_of(dtype)
        # NumPy ints become Python ints: Keras does not accept them.
        depths, dims, stem_stride = tuple(map(int, depths)), tuple(map(int, dims)), int(stem_stride)
        images = make_input(input_shape, input_tensor, stem_stride)
        mean, std = check_statistics(images.shape[-1], *statistics_for(known, images.shape[-1], mean, std))
        preprocessing = preprocessing_layer(include_preprocessing, mean, std)
        x = stages(images, depths, dims, stem_stride, drop_path_rate, preprocessing, policy)[-1]
        if include_top or pooling:
            # The head costs next to nothing, so half precision would save nothing and only round the logits.
            full = policy.variable_dtype
            x = POOLINGS["avg" if include_top else pooling](dtype=full, name="pool")(x)
            x = keras.layers.LayerNormalization(epsilon=norm_epsilon, dtype=full, name="norm")(x)
        if include_top:
            x = keras.layers.Dense(
                classes,
                activation=classifier_activation,
                kernel_initializer=kernel_initializer(head_init_scale),
                dtype=_head_policy(policy),
                name=HEAD,
            )(x)
        super().__init__(inputs=source_inputs(images), outputs=x, name=name)

        set_policy(self, policy)
        self.images = images
        self.depths = depths
        self.dims = dims
        self.include_top = include_top
        self.classes = classes
        self.classifier_activation = classifier_activation
        self.pooling = pooling
        self.class_names = None if class_names is None else tuple(class_names)
        self.image_size = evaluation_size(image_size, images.shape, stem_stride)
        self.resize = resize
        self.include_preprocessing = include_preprocessing
        self.mean = mean
        self.std = std
        self.stem_stride = stem_stride
        self.drop_path_rate = drop_path_rate
        self.head_init_scale = head_init_scale
        self.norm_epsilon = norm_epsilon
        if source is not None:
            load_weights(self, source, other_classes=own_head)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        if hasattr(inputs, "shape"):  # false for a model that was built on several inputs
            check_size(inputs, self.stem_stride)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def with_head(
        self,
        classes: int,
        classifier_activation: str | Callable | None = "softmax",
        class_names: Sequence[str] | None = None,
        head_init_scale: float = 1.0,
        name: str | None = None,
    ) -> Self:
        """Returns a new classifier with copies of this model's weights and a new head, with initial values.

        The final norm is copied if this model has one. Layers that are frozen here are frozen in the new model, except
        for the head.

        ```python
        model = keras_cnv2.ConvNeXtV2Atto(weights="imagenet").with_head(3, class_names=["cat", "dog", "horse"])
        ```

        Args:
            classes, classifier_activation, class_names, head_init_scale: As in `keras_cnv2.ConvNeXtV2`.
            name: Name of the new model, by default that of this one.

        Raises:
            ValueError: If an argument is out of range, or this model was built on the output of other layers.
        """
        config = {
            **self.get_config(),
            "name": name or self.name,
            "include_top": True,
            "pooling": None,
            "classes": classes,
            "classifier_activation": classifier_activation,
            "class_names": class_names,
            "head_init_scale": head_init_scale,
            "trainable": True,
        }
        if SETTINGS in config:
            config[SETTINGS] = {path: entry for path, entry in config[SETTINGS].items() if path != HEAD}
        model = type(self).from_config(config)
        ours = {layer.name: layer for layer in self.layers}
        for layer in model.layers:
            if layer.name != HEAD and layer.name in ours:
                layer.set_weights(ours[layer.name].get_weights())
                if not self.trainable:
                    layer.trainable = False
        return model

    def get_config(self) -> dict[str, Any]:
        activation = self.classifier_activation
        return {
            **architecture_config(self),
            "depths": self.depths,
            "dims": self.dims,
            "include_top": self.include_top,
            "classes": self.classes,
            "classifier_activation": keras.activations.serialize(activation) if callable(activation) else activation,
            "pooling": self.pooling,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "resize": self.resize,
            "head_init_scale": self.head_init_scale,
            "norm_epsilon": self.norm_epsilon,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return from_architecture_config(cls, config, custom_objects)


def _head_policy(policy):
    """The policy of a map of policies for the head, if it has one; else the variable dtype, for full precision."""
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap) and policy[HEAD] != policy.default_policy:
        return policy[HEAD]
    return policy.variable_dtype


def classes_for(found, given):
    """The number of classes: the given one, else that of the weights (`found` or `None`) if it is known, else 1000."""
    return given if given is not None else (found and found.classes) or PUBLISHED_CLASSES


def epsilon_for(known, given):
    """The epsilon of the final norm: the given one, checked, else that of the weights, else 1e-6.

    Args:
        known: Metadata of the weights.
        given: Float or `None`.
    """
    if given is None:
        return known.get("norm_epsilon", EPSILON)
    if not is_epsilon(given):
        raise ValueError(f"norm_epsilon must be a number between 0 and 1. Received: norm_epsilon={given!r}")
    return float(given)


def check_head(include_top, classes, pooling, class_names):
    """Raises a `ValueError` for a head that cannot be built."""
    if include_top:
        positive_int("classes", classes)
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling must be None or one of {tuple(POOLINGS)}. Received: pooling={pooling!r}")
    if class_names is None:
        return
    is_list = isinstance(class_names, (tuple, list)) and all(isinstance(name, str) for name in class_names)
    if not is_list or len(class_names) != classes:
        raise ValueError(
            f"class_names must be a list of {classes} strings, one per class. Received: class_names={class_names!r}"
        )


def check_activation(classes, activation):
    """Raises a `ValueError` for softmax with one class, whose probability is always 1."""
    if classes == 1 and keras.activations.get(activation) is keras.activations.softmax:
        raise ValueError(
            "The softmax of one class is 1 for any image: give classifier_activation='sigmoid' (or None for logits), "
            f"or classes=2. Received: classes=1, classifier_activation={activation!r}"
        )


def evaluation_size(image_size, shape, stem_stride):
    """The side of images for evaluation: `image_size`, else that of a square input shape, else `None`."""
    sides = set(shape[1:3])
    if image_size is None:
        return sides.pop() if len(sides) == 1 else None
    smallest = total_stride(stem_stride)
    if not is_positive_int(image_size) or not smallest <= image_size <= MAX_IMAGE_SIZE:
        raise ValueError(
            f"image_size must be an int from {smallest} to {MAX_IMAGE_SIZE}. Received: image_size={image_size!r}"
        )
    if sides - {None, image_size}:
        raise ValueError(
            f"image_size must be left out or equal the sides of input_shape. Received: image_size={image_size}, "
            f"input_shape={tuple(shape[1:])}"
        )
    return int(image_size)


def _of_size(size) -> Callable[..., ConvNeXtV2]:
    """Creates the public function that builds the published size called `size`."""
    row = get_size(size)

    def build(*args, name=f"convnextv2_{size}", **kwargs):
        return ConvNeXtV2(row.depths, row.dims, *args, name=name, **kwargs)

    signature = inspect.signature(ConvNeXtV2)
    parameters = {**signature.parameters, "name": signature.parameters["name"].replace(default=f"convnextv2_{size}")}
    arguments = [parameter for key, parameter in parameters.items() if key not in ("depths", "dims")]
    build.__name__ = build.__qualname__ = f"ConvNeXtV2{size.capitalize()}"
    build.__signature__ = signature.replace(parameters=arguments, return_annotation=ConvNeXtV2)
    build.__doc__ = f"""ConvNeXt V2 {size.capitalize()}: depths {row.depths}, dims {row.dims}.

    {row.parameters:,} parameters with 1000 classes, {row.gmacs:g} G multiply-accumulates at 224 x 224.

    ```python
    model = keras_cnv2.{build.__name__}(weights="imagenet")
    probabilities = model.predict(images)  # (N, 1000), of images (N, height, width, 3) in 0..255
    ```

    Args and returns: as `keras_cnv2.ConvNeXtV2`, without `depths` and `dims`.
    """
    return build


ConvNeXtV2Atto = _of_size("atto")
ConvNeXtV2Femto = _of_size("femto")
ConvNeXtV2Pico = _of_size("pico")
ConvNeXtV2Nano = _of_size("nano")
ConvNeXtV2Tiny = _of_size("tiny")
ConvNeXtV2Base = _of_size("base")
ConvNeXtV2Large = _of_size("large")
ConvNeXtV2Huge = _of_size("huge")
