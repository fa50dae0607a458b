"""Contestants of keras_cnv2's Mask R-CNN: whole steps, steps cut off after a part, and single parts."""

import keras
import tensorflow as tf
from keras import ops

import keras_cnv2
from benchmarks.adamw import LEARNING_RATE
from benchmarks.detection_task import CLASSES, UNITS, WIDTH, weights
from benchmarks.graphs import graph
from keras_cnv2.detection.two_stage.heads import BoxHead, MaskHead, ProposalHead
from keras_cnv2.detection.two_stage.pyramid import LEVELS, TwoStagePyramid


def model(task, masks=True):
    """Returns the Mask R-CNN of a task."""
    shape = (task.image_size, task.image_size, 3)
    backbone = keras_cnv2.ConvNeXtV2Backbone(task.size, pyramid_norms=True, input_shape=shape)
    return keras_cnv2.detection.mask_rcnn(backbone, CLASSES, masks=masks, seed=0)


def prediction(task, until):
    """Returns a function that predicts one batch, cut off after a part: the encoder's levels, logits and deltas of the
    anchors, proposals, boxes of all classes, or detections; "all" computes their masks, too."""
    made = model(task)
    detector = keras_cnv2.detection.Detector(made)

    def predict(images):
        if until == "encoder":
            return _total(made.features(images, training=False))
        if until == "pyramid and anchors":
            return _total([made.proposal_head(x) for x in made.pyramid(made.features(images, training=False))])
        first = made(images, training=False)
        if until == "proposals":
            return _total(first["boxes"])
        dense = made.dense(first, images.shape)
        if until == "boxes":
            return _total(dense)
        found = detector.detections(dense, images.shape)
        if until == "all":
            found["masks"] = made.masks_in(first, found["boxes"], found["classes"])
        return _total({name: ops.cast(value, "float32") for name, value in found.items()})

    return graph(predict, task.images())


def training(task, until):
    """Returns a function that makes a training step of AdamW on a loss of the encoder's levels, of the outputs for
    anchors, of "losses without masks", or of "all" losses."""
    made = model(task, masks=until == "all")
    optimizer = keras_cnv2.LayerDecayAdamW(LEARNING_RATE, 0.05)
    variables = made.trainable_variables
    optimizer.build(variables)
    labels = {name: tf.constant(value) for name, value in task.labels().items()}

    def loss_of(images):
        if until == "encoder":
            return _total(made.features(images, training=True))
        if until == "pyramid and anchors":
            return _total([made.proposal_head(x) for x in made.pyramid(made.features(images, training=True))])
        first = made(images, training=True)
        return made.compute_loss(images, labels, first)

    def step(images):
        with tf.GradientTape() as tape:
            loss = loss_of(images)
        gradients = tape.gradient(loss, variables)
        known = [(gradient, variable) for gradient, variable in zip(gradients, variables) if gradient is not None]
        optimizer.apply_gradients(known)
        return loss

    return graph(step, task.images())


def _total(outputs):
    return sum(ops.sum(ops.cast(x, "float32")) for x in keras.tree.flatten(outputs))


def part(task, name, trained=False):
    """Returns a function that computes a part from given features, or with `trained` also its gradients.

    Args:
        task: `DetectionTask`.
        name: "pyramid" (with the proposal head), "box_head" or "mask_head".
        trained: Bool, whether to return the sums of the gradients of the mean square of the outputs.
    """
    compute, layers, features = {"pyramid": _pyramid, "box_head": _box_head, "mask_head": _mask_head}[name](task)
    for layer_name, layer in layers.items():
        kernel, bias = weights(layer_name, layer.kernel.shape)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    if not trained:
        return graph(compute, *features)
    variables = [variable for layer in layers.values() for variable in layer.trainable_variables]

    def gradients(*features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_mean(tf.square(compute(*features)))
        return tf.stack([tf.reduce_sum(tf.abs(x)) for x in tape.gradient(loss, [*variables, *features])])

    return graph(gradients, *features)


def _pyramid(task):
    pyramid, head = TwoStagePyramid(WIDTH), ProposalHead(WIDTH)
    features = task.features("pyramid")
    pyramid.build({level: x.shape for level, x in zip(LEVELS, features)})
    head.build((None, None, None, WIDTH))
    layers = {f"lateral_{n}": layer for n, layer in enumerate(pyramid.laterals)}
    layers |= {f"output_{n}": layer for n, layer in enumerate(pyramid.outputs)}
    layers |= {"conv": head.conv, "objectness": head.objectness, "deltas": head.deltas}

    def compute(*features):
        outputs = [head(x) for x in pyramid(dict(zip(LEVELS, features)))]
        return tf.concat([tf.reshape(x, [task.batch, -1]) for pair in outputs for x in pair], axis=1)

    return compute, layers, features


def _box_head(task):
    head = BoxHead(CLASSES, UNITS)
    head.build((None, None, 7, 7, WIDTH))
    layers = dict(zip(("dense_1", "dense_2", "logits", "box_deltas"), [*head.dense, head.logits, head.deltas]))

    def compute(features):
        logits, deltas = head(features[None])
        return tf.concat([logits[0], tf.reshape(deltas, [len(logits[0]), -1])], axis=1)

    return compute, layers, task.features("box_head")


def _mask_head(task):
    head = MaskHead(CLASSES, WIDTH)
    head.build((None, None, 14, 14, WIDTH))
    layers = {f"mask_conv_{n}": layer for n, layer in enumerate(head.convs)}
    layers |= {"double": head.double, "mask_logits": head.logits}
    return lambda features: head(features[None])[0], layers, task.features("mask_head")
