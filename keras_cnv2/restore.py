"""A model from its checkpoint alone."""

from math import prod

from keras_cnv2.checkpoints.architecture import architecture_of
from keras_cnv2.checkpoints.convert import load_contents, shape_of, translate
from keras_cnv2.checkpoints.metadata import default_activation
from keras_cnv2.checkpoints.source import fetch_weights, open_weights
from keras_cnv2.errors import CheckpointError
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2

OUR_MODELS = tuple(f"keras_cnv2>{model.__name__}" for model in (ConvNeXtV2, ConvNeXtV2Backbone, FCMAE))


def restore_model(weights, size=None, classifier_activation=None):
    """Builds the model that a checkpoint is of, and loads it.

    Args:
        weights: Path of a file, or tag or full name of a published checkpoint.
        size: Name of the size, where a tag leaves it open.
        classifier_activation: Activation of a classifier; by default the one its file names, else "softmax", of a
            single class "sigmoid".

    Returns:
        A classifier, with or without its last dense layer, a backbone, or an FCMAE: what the checkpoint holds. It takes
        images in 0..255, an FCMAE those of the size that its Keras file names, or of 7 x 7 patches, others any size.

    Raises:
        CheckpointError: If the checkpoint cannot be had or read, is not whole, or is another Keras model's.
        FileNotFoundError: If it is a path without a file.
    """
    with open_weights(fetch_weights(weights, size)) as contents:
        architecture = read_architecture(contents)
        if contents.config and contents.config.get("registered_name") not in OUR_MODELS:
            raise CheckpointError(
                "the file holds another model, of which this one may be a part; load it with keras.saving.load_model. "
                f"Received: {contents.config.get('registered_name')!r}"
            )
        try:
            activation = classifier_activation or _activation(contents, architecture.classes)
            model = _build(architecture, activation, _saved(contents))
        except (TypeError, ValueError) as error:  # a stem, an activation or settings that there are not
            raise CheckpointError(f"no model can be built for these weights. {error}") from error
        load_contents(model, contents)
    return model


def read_architecture(contents):
    """The `Architecture` of open contents, or a `CheckpointError` if they hold too little for it."""
    _, tensors, _ = translate(contents.tensors)
    architecture = architecture_of({path: tensor.shape_here for path, tensor in tensors.items()})
    # Half of a model's weights, more or less, are the first dense layers of its blocks. Without them in the file, its
    # model is not worth the memory: names and a few long vectors could claim a model of any size.
    claimed = sum(4 * depth * dim**2 for depth, dim in zip(architecture.depths, architecture.dims))
    held = sum(prod(shape_of(tensor.array)) for tensor in tensors.values())
    if claimed > held:
        raise CheckpointError(f"these weights are no whole ConvNeXt V2. Received: {held} numbers for {architecture}")
    return architecture


def _activation(contents, classes):
    """The activation that a file names, the default one for logits and where nothing is said."""
    activation = {**contents.metadata, **_saved(contents)}.get("classifier_activation")
    if activation is not None and not isinstance(activation, str):
        raise CheckpointError(f"only activations of Keras are restored. Received: {activation!r}")
    return default_activation(classes) if activation in (None, "linear") else activation


def _saved(contents):
    """The arguments of the model in a Keras file; of other files, none."""
    return contents.config["config"] if contents.config else {}


def _build(architecture, classifier_activation, saved):
    common = {
        "depths": architecture.depths,
        "dims": architecture.dims,
        "input_shape": (None, None, architecture.channels),
        "stem_stride": architecture.stem_stride,
    }
    if architecture.decoder_dim:
        backbone = ConvNeXtV2Backbone(**common)
        settings = {"image_size": 7 * 8 * architecture.stem_stride} | {
            name: saved[name] for name in ("image_size", "mask_ratio", "norm_pix_loss") if name in saved
        }
        return FCMAE(
            backbone, **settings, decoder_dim=architecture.decoder_dim, decoder_depth=architecture.decoder_depth
        )
    if architecture.classes:
        return ConvNeXtV2(**common, classes=architecture.classes, classifier_activation=classifier_activation)
    if architecture.has_norm:
        return ConvNeXtV2(**common, include_top=False, pooling=saved.get("pooling") or "avg")
    return ConvNeXtV2Backbone(**common, pyramid_norms=architecture.has_pyramid_norms)
