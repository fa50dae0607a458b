"""The class `RetinaNet`. This module imports KerasCV, so it is itself imported only when a model is built or loaded."""

import contextlib

import keras
import keras_cv
from keras import ops

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.detection.anchors import (
    ANCHORS,
    SIZES,
    STRIDES,
    all_anchors,
    anchor_generator,
    check_sides,
    image_size_for,
    level_sizes,
)
from keras_cnv2.detection.boxes import clip, from_deltas
from keras_cnv2.detection.heads import PRIOR, PredictionHead, Pyramid
from keras_cnv2.detection.labels import are_usable, image_weights
from keras_cnv2.detection.loss import FocalLoss
from keras_cnv2.detection.matching import IGNORED, AnchorTargets
from keras_cnv2.distribute import replicas
from keras_cnv2.models.classifier import check_head
from keras_cnv2.models.configuration import from_nested_config, layers_config

LEVELS = ("P3", "P4", "P5")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class RetinaNet(keras_cv.models.RetinaNet):
    """`keras_cv.models.RetinaNet` with the pyramid, heads, targets and loss of this package.

    The arguments are those of `keras_cnv2.detection.retinanet`. KerasCV provides the functional graph, the anchors, the
    two losses of `compile`, and `predict`, which decodes.
    """

    def __init__(
        self,
        backbone,
        classes,
        width=256,
        convs=4,
        class_names=None,
        anchor_sizes=SIZES,
        low_quality_matches=True,
        image_size=None,
        name=None,
    ):
        check_head(True, classes, None, class_names)
        _check(backbone, anchor_sizes)
        image_size = image_size_for(image_size, backbone.input_shape)
        policy = backbone.dtype_policy
        with _global_policy("float32"):  # otherwise KerasCV's layers round predictions to half precision
            super().__init__(
                backbone=backbone,
                num_classes=classes,
                bounding_box_format="xyxy",
                label_encoder=AnchorTargets(anchor_generator(anchor_sizes), low_quality_matches),
                feature_pyramid=Pyramid(width, dtype=policy, name="pyramid"),
                classification_head=PredictionHead(
                    ANCHORS * classes, width, convs, PRIOR, dtype=policy, name="classification_head"
                ),
                box_head=PredictionHead(ANCHORS * 4, width, convs, dtype=policy, name="box_head"),
                name=name,
            )
        self.classes = int(classes)
        self.width = width
        self.convs = convs
        self.class_names = None if class_names is None else tuple(class_names)
        self.anchor_sizes = tuple(map(float, anchor_sizes))
        self.low_quality_matches = low_quality_matches
        self.image_size = image_size

    @property
    def backbone(self):
        return self._backbone

    @backbone.setter
    def backbone(self, backbone):
        # Set without Keras's tracking. KerasCV would track the whole backbone, including layers that no level uses,
        # like P2's norm, which get no gradient.
        object.__setattr__(self, "_backbone", backbone)

    def call(self, inputs, *args, **kwargs):
        images = _images(inputs)
        check_sides(images.shape)
        return super().call({"images": images}, *args, **kwargs)

    def dense(self, predictions, shape):
        """Decodes the box and the probabilities of every anchor, see `keras_cnv2.detection.Detector.dense`."""
        anchors = all_anchors(self.anchor_generator, shape)
        # Restores the static number of anchors, which Keras 3.10 loses in graphs.
        deltas, logits = (
            ops.reshape(predictions[name], (-1, anchors.shape[0], predictions[name].shape[-1]))
            for name in ("box", "classification")
        )
        return {"boxes": clip(from_deltas(anchors, deltas), *shape[1:3]), "scores": ops.sigmoid(logits)}

    def parts(self, shape):
        """Returns the number of anchors of each level, from which candidates are taken separately."""
        return level_sizes(shape)

    def compile(self, optimizer="rmsprop", box_loss="smoothl1", classification_loss="focal", **kwargs):
        """Like `keras_cv.models.RetinaNet.compile`, with the paper's losses as defaults.

        `classification_loss="focal"` selects `keras_cnv2.detection.loss.FocalLoss`.
        """
        if classification_loss == "focal":
            classification_loss = FocalLoss()
        super().compile(box_loss, classification_loss, optimizer=optimizer, **kwargs)

    def get_compile_config(self):
        if not self.compiled:
            return {}
        compiled = {"optimizer": self.optimizer, "box_loss": self.box_loss}
        return keras.saving.serialize_keras_object({**compiled, "classification_loss": self.classification_loss})

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # KerasCV divides by the number of matched anchors on one replica, although the gradients of all replicas are
        # summed. It also gives a batch without boxes no loss, although all its detections are false positives.
        deltas, classes = self.label_encoder(_images(x), y)
        weights = image_weights(sample_weight)
        has_box = ops.cast(classes >= 0, "float32") * weights
        counts = ops.cast(classes != IGNORED, "float32") * weights
        boxes = ops.maximum(replicas.all_sum(ops.sum(has_box)), 1.0)
        # A label that is not a class would count as background, and an image with a box of NaN would have no loss. A
        # compiled step cannot raise an error, so the loss of such an image becomes NaN.
        known = are_usable(y, self.classes)
        targets = ops.one_hot(classes, self.classes, dtype="float32")
        return super(keras_cv.models.RetinaNet, self).compute_loss(
            x=x,
            y={"box": deltas, "classification": ops.where(known[:, None, None], targets, float("nan"))},
            y_pred=y_pred,
            sample_weight={"box": has_box / boxes, "classification": counts / boxes},
            training=training,
        )

    # Keras's own steps: those of KerasCV take no sample weights.

    def train_step(self, data):
        return super(keras_cv.models.RetinaNet, self).train_step(_as_tuple(data))

    def test_step(self, data):
        return super(keras_cv.models.RetinaNet, self).test_step(_as_tuple(data))

    def get_config(self):
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "classes": self.classes,
            "width": self.width,
            "convs": self.convs,
            "class_names": self.class_names,
            "anchor_sizes": self.anchor_sizes,
            "low_quality_matches": self.low_quality_matches,
            "image_size": self.image_size,
            "name": self.name,
            **layers_config(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return from_nested_config(cls, config, ("backbone",), custom_objects)


def _check(backbone, anchor_sizes):
    """Raises a `ValueError` unless a RetinaNet can be built on this backbone with these anchor sizes."""
    levels = getattr(backbone, "pyramid_level_inputs", {})
    if not {*LEVELS} <= {*levels}:
        raise ValueError(
            "RetinaNet needs a backbone with the levels P3 to P5, like ConvNeXtV2Backbone with stem_stride=4. "
            f"Received: backbone with {[*levels] or 'no pyramid_level_inputs'}"
        )
    if getattr(backbone, "output_stride", None):
        raise ValueError(
            "RetinaNet needs levels with strides of their own: give a backbone without output_stride. "
            f"Received: output_stride={backbone.output_stride}"
        )
    check_sides(backbone.input_shape)
    is_list = isinstance(anchor_sizes, (tuple, list)) and len(anchor_sizes) == len(STRIDES)
    if not is_list or not all(map(_is_size, anchor_sizes)):
        raise ValueError(
            f"anchor_sizes must be {len(STRIDES)} positive numbers, one per level. Received: {anchor_sizes!r}"
        )


def _is_size(size):
    return is_positive_int(size) or (isinstance(size, float) and 0 < size < float("inf"))


@contextlib.contextmanager
def _global_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _images(inputs):
    return inputs["images"] if isinstance(inputs, dict) else inputs


def _as_tuple(data):
    """Returns a batch as (images, labels[, weights]); batches in KerasCV's format are dicts."""
    return (data["images"], data["bounding_boxes"]) if isinstance(data, dict) else data
