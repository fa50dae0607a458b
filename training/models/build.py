"""The model that a recipe trains."""

import dataclasses

import keras

import keras_cnv2
from keras_cnv2.detection import retinanet
from keras_cnv2.segmentation import UPerNet, deeplab_v3_plus

from .stems import spread_weights


def new_fcmae(recipe, channels):
    """The `keras_cnv2.FCMAE` that a recipe pre-trains, for images of so many channels."""
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        **recipe.architecture,
        stem_stride=recipe.stem_stride,
        drop_path_rate=recipe.drop_path,
        input_shape=(None, None, channels),
        dtype=recipe.dtype,
        name="backbone",
    )
    return keras_cnv2.FCMAE(
        backbone,
        recipe.image_size,
        mask_ratio=recipe.mask_ratio,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
        norm_pix_loss=recipe.norm_pix_loss,
        seed=recipe.seed,
    )


def new_classifier(recipe, channels, class_names, weights=None, classifier_activation=None, dtype=None):
    """The `keras_cnv2.ConvNeXtV2` that a recipe fine-tunes, for images of so many channels. It gives logits."""
    return keras_cnv2.ConvNeXtV2(
        **recipe.architecture,
        weights=weights,
        stem_stride=recipe.stem_stride,
        input_shape=(*recipe.sides, channels),
        classes=len(class_names),
        class_names=class_names,
        classifier_activation=classifier_activation,
        resize=recipe.resize,
        drop_path_rate=recipe.drop_path,
        head_init_scale=recipe.head_init if weights else 1.0,  # as small a head would never get going from scratch
        dtype=dtype or recipe.dtype,
        name="classifier",
    )


def freeze_encoder(classifier):
    """Leaves only the final norm and the head to be trained."""
    for layer in classifier.layers:
        layer.trainable = layer.name in ("norm", "head")


def without_grn(model):
    """Makes GRN the identity for good, whatever weights the model started from."""
    for block in blocks_of(model):
        for weight in block.grn.weights:
            weight.assign(keras.ops.zeros(weight.shape))
        block.grn.trainable = False


def rematerialize(model):
    """Makes the blocks compute again what their gradients need, instead of keeping it."""
    for block in blocks_of(model):
        block.remat = True


def blocks_of(model):
    """All blocks of a classifier, or of an FCMAE with those of its decoder."""
    encoder = getattr(model, "backbone", model)
    blocks = [layer for layer in encoder.layers if isinstance(layer, keras_cnv2.ConvNeXtV2Block)]
    return [*blocks, *getattr(model, "decoder", [])]


def described_classifier(classifier):
    """What `keras.saving.serialize_keras_object` makes of `with_softmax` of this classifier, which is not built."""
    found = keras.saving.serialize_keras_object(classifier)
    config = {key: value for key, value in found["config"].items() if key not in ("frozen", "remat", "pretrained")}
    dtype = keras.dtype_policies.serialize(keras.DTypePolicy("float32"))
    config |= {"trainable": True, "classifier_activation": "softmax", "head_init_scale": 1.0, "dtype": dtype}
    return found | {"config": config}


def with_softmax(classifier, recipe):
    """A copy of a trained classifier that gives probabilities, in float32: what is saved and served."""
    channels, names = classifier.input_shape[-1], classifier.class_names
    recipe = dataclasses.replace(recipe, first_size=None, first_epochs=0)  # it is for the size at the end
    copy = new_classifier(recipe, channels, names, classifier_activation="softmax", dtype="float32")
    keras_cnv2.load_checkpoint(copy, keras_cnv2.state_dict(classifier))
    return copy


def new_backbone(recipe, weights=None):
    """The encoder of a recipe, with a LayerNorm for each level of its pyramid."""
    spread = spread_weights(weights, recipe.model, recipe.stem_stride) if weights else None
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        **recipe.architecture,
        weights=None if spread else weights,
        drop_path_rate=recipe.drop_path,
        input_shape=(*recipe.sides, 3),
        pyramid_norms=True,
        dtype=recipe.dtype,
        name="backbone",
    )
    if spread:
        keras_cnv2.load_checkpoint(backbone, spread)
    return backbone


def is_exportable(model):
    """Whether the encoder under a head is ours: those of others are trained to compare with."""
    return isinstance(model.backbone, keras_cnv2.ConvNeXtV2Backbone)


def new_segmenter(recipe, class_names, weights=None, new_encoder=new_backbone):
    """The model that a recipe trains: logits `(N, H, W, classes)` of images `(N, H, W, 3)`."""
    backbone = new_encoder(recipe, weights)
    if recipe.head == "deeplab":
        return deeplab_v3_plus(backbone, len(class_names), class_names=class_names)
    return UPerNet(
        backbone, len(class_names), recipe.head_width, class_names=class_names, dtype=recipe.dtype, name="segmenter"
    )


def new_retinanet(recipe, class_names, weights=None, new_encoder=new_backbone):
    """The model that a recipe trains."""
    return retinanet(
        new_encoder(recipe, weights),
        len(class_names),
        width=recipe.head_width,
        convs=recipe.head_convs,
        class_names=class_names,
        name="detector",
    )
