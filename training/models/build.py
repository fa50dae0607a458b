"""Builds the model that a recipe trains."""

import keras

import keras_cnv2
from keras_cnv2.checkpoints.source import fetch_weights, known_of, load_weights, statistics_for
from keras_cnv2.detection import Variant, mask_rcnn, retinanet
from keras_cnv2.segmentation import UPerNet, deeplab_v3_plus

from .distillation import DistillationLoss, Student
from .stems import spread_weights


def new_fcmae(recipe, channels, weights=None):
    """Returns the `keras_cnv2.FCMAE` that a recipe pre-trains, for images with this number of channels."""
    found = fetch_weights(weights, recipe.model) if weights else None
    mean, std = statistics_for(known_of(found), channels, None, None)
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        **recipe.architecture,
        stem_stride=recipe.stem_stride,
        drop_path_rate=recipe.drop_path,
        input_shape=(None, None, channels),
        mean=mean,
        std=std,
        dtype=recipe.dtype,
        name="backbone",
    )
    fcmae = keras_cnv2.FCMAE(
        backbone,
        recipe.image_size,
        mask_ratio=recipe.mask_ratio,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
        norm_pix_loss=recipe.norm_pix_loss,
        seed=recipe.seed,
    )
    if found:
        load_weights(fcmae, found)
    if not recipe.grn:
        without_grn(fcmae)
    return fcmae


def new_classifier(recipe, channels, class_names, weights=None, teacher=None):
    """Returns the `keras_cnv2.ConvNeXtV2` that a recipe fine-tunes, for images with this number of channels.

    It outputs logits. With a `training.models.distillation.Teacher` it is a `Student`.
    """
    # With a small head, training from scratch gets stuck.
    head_init_scale = recipe.head_init if weights else 1.0
    options = {"weights": weights, "head_init_scale": head_init_scale, "dtype": recipe.dtype}
    if teacher:
        loss = DistillationLoss(recipe.teacher_share, recipe.temperature)
        options |= {"kind": Student, "teacher": teacher, "distillation": loss}
    classifier = _classifier(recipe, (*recipe.sides, channels), class_names, classifier_activation=None, **options)
    if recipe.frozen:
        freeze_encoder(classifier)
    if not recipe.grn:
        without_grn(classifier)
    return classifier


def _classifier(recipe, input_shape, class_names, kind=keras_cnv2.ConvNeXtV2, **options):
    return kind(
        **recipe.architecture,
        stem_stride=recipe.stem_stride,
        input_shape=input_shape,
        classes=len(class_names),
        class_names=class_names,
        resize=recipe.resize,
        drop_path_rate=recipe.drop_path,
        name="classifier",
        **options,
    )


def freeze_encoder(classifier):
    """Freezes all layers except the final norm and the head."""
    for layer in classifier.layers:
        layer.trainable = layer.name in ("norm", "head")


def without_grn(model):
    """Sets GRN to the identity and freezes it, regardless of the model's initial weights."""
    for block in blocks_of(model):
        for weight in block.grn.weights:
            weight.assign(keras.ops.zeros(weight.shape))
        block.grn.trainable = False


def rematerialize(model):
    """Makes the blocks recompute their activations for the gradients instead of storing them."""
    for block in blocks_of(model):
        block.remat = True


def blocks_of(model):
    """Returns all blocks of a classifier, or all blocks of an FCMAE including its decoder."""
    encoder = getattr(model, "backbone", model)
    blocks = [layer for layer in encoder.layers if isinstance(layer, keras_cnv2.ConvNeXtV2Block)]
    return [*blocks, *getattr(model, "decoder", [])]


def described_classifier(classifier):
    """Returns what `keras.saving.serialize_keras_object` returns for `with_softmax`, without building that model."""
    found = keras.saving.serialize_keras_object(classifier)
    config = {key: value for key, value in found["config"].items() if key not in ("frozen", "remat", "pretrained")}
    dtype = keras.dtype_policies.serialize(keras.DTypePolicy("float32"))
    config |= {"trainable": True, "classifier_activation": "softmax", "head_init_scale": 1.0, "dtype": dtype}
    cls = keras_cnv2.ConvNeXtV2  # also of a `Student`
    names = {"module": cls.__module__, "class_name": cls.__name__}
    return found | names | {"config": config, "registered_name": keras.saving.get_registered_name(cls)}


def with_softmax(classifier, recipe):
    """Returns a copy of a trained classifier that outputs probabilities in float32, to be saved and served."""
    input_shape = (recipe.image_size, recipe.image_size, classifier.input_shape[-1])
    options = {name: getattr(classifier, name) for name in ("mean", "std", "norm_epsilon")}
    options |= {"classifier_activation": "softmax", "dtype": "float32"}
    copy = _classifier(recipe, input_shape, classifier.class_names, **options)
    keras_cnv2.load_checkpoint(copy, keras_cnv2.state_dict(classifier))
    return copy


def new_backbone(recipe, weights=None):
    """Returns the encoder of a recipe, with a LayerNorm for each level of its pyramid."""
    spread, (mean, std) = None, (None, None)
    if weights:
        spread = spread_weights(weights, recipe.model, recipe.stem_stride)
        mean, std = statistics_for(known_of(fetch_weights(weights, recipe.model)), 3, None, None)
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        **recipe.architecture,
        weights=None if spread else weights,
        mean=mean,
        std=std,
        drop_path_rate=recipe.drop_path,
        input_shape=(*recipe.sides, 3),
        pyramid_norms=True,
        dtype=recipe.dtype,
        name="backbone",
    )
    if spread:
        keras_cnv2.load_checkpoint(backbone, spread)
    return backbone


def new_segmenter(recipe, backbone, class_names):
    """Returns the segmentation model of a recipe, from images `(N, H, W, 3)` to logits `(N, H, W, classes)`."""
    classes = len(class_names)
    if recipe.head == "deeplab":
        return deeplab_v3_plus(backbone, classes, class_names=class_names)
    return UPerNet(backbone, classes, recipe.head_width, class_names=class_names, dtype=recipe.dtype, name="segmenter")


def new_detector(recipe, backbone, class_names):
    """Returns the detector of a recipe: RetinaNet, Mask R-CNN or Faster R-CNN."""
    common = {
        "classes": len(class_names),
        "width": recipe.head_width,
        "convs": recipe.head_convs,
        "class_names": class_names,
        "image_size": recipe.image_size,
        "name": "detector",
    }
    if recipe.head == "retinanet":
        return retinanet(backbone, **common)
    variant = Variant(
        anchor_scale=recipe.anchor_scale,
        training_candidates=2 * recipe.proposals,
        candidates=recipe.proposals,
        training_proposals=recipe.proposals,
        proposals=recipe.proposals,
        anchor_samples=recipe.anchor_samples,
        box_samples=recipe.box_samples,
    )
    options = {"masks": recipe.masks, "units": recipe.head_units, "variant": variant, "seed": recipe.seed}
    return mask_rcnn(backbone, **common, **options)
