"""Analyses a model on images: measures of its blocks, feature maps, and explained predictions."""

import keras
import numpy as np

from keras_cnv2.models.heads import kind_of
from keras_cnv2.models.pictures import class_names, to_input

from ..drawing.progress import progress_bar
from . import measures
from .features import Blocks


def measure(name, model, images, labels, classes, batch_size):
    """Measures the channels of each block.

    Args:
        name: The model's name, shown beside the progress bar.
        model: A classifier, a backbone or an FCMAE, whose encoder then gets unmasked images.
        images: Array `(N, height, width, channels)` in 0..255.
        labels: Int array `(N,)`, indices of classes.
        classes: Int, the number of classes; 0 for images without classes.
        batch_size: Int.

    Returns:
        Two dicts by block: the mean cosine distance of channels, and the class selectivity of each channel, an array
        `(C,)`; the latter is empty without classes.
    """
    blocks = Blocks(model)
    distances = {block: [] for block in blocks.names}
    selectivity = {block: measures.Selectivity(classes) for block in blocks.names} if classes else {}
    with progress_bar(desc=name, total=len(images)) as bar:
        for start in range(0, len(images), batch_size):
            batch, of_batch = images[start : start + batch_size], labels[start : start + batch_size]
            for block, (expanded, output) in zip(blocks.names, blocks.of(to_input(model, batch))):
                distances[block].extend(measures.cosine_distance(expanded))
                if classes:
                    selectivity[block].update(output, of_batch)
            bar.update(len(batch))
    means = {block: float(np.mean(values)) for block, values in distances.items()}
    return means, {block: counted.result() for block, counted in selectivity.items()}


def stage_maps(model, image):
    """Returns the expanded feature maps of an image `(height, width, channels)` in the last block of each stage.

    The result is a dict from blocks to arrays `(h, w, 4C)`.
    """
    blocks = Blocks(model)
    held = dict(zip(blocks.names, (expanded[0] for expanded, _ in blocks.of(to_input(model, image[None])))))
    lasts = {block.rsplit("_", 1)[0]: block for block in blocks.names}
    return {block: held[block] for block in lasts.values()}


def explain(classifier, images):
    """Explains the predictions of a classifier with Grad-CAM.

    Args:
        classifier: A `keras_cnv2.ConvNeXtV2` with its top.
        images: Array `(N, height, width, channels)` in 0..255.

    Returns:
        Grad-CAM maps `(N, h, w)`, and N strings, the predicted classes with their probabilities or logits.
    """
    inputs = to_input(classifier, images)
    *_, (_, features) = Blocks(classifier).of(inputs)
    outputs = keras.ops.convert_to_numpy(classifier(inputs, training=False))
    best, shown = outputs.argmax(-1), "{:.0%}" if kind_of(classifier) == "probabilities" else "{:.3g}"
    maps = measures.grad_cam(features, classifier.get_layer("norm"), classifier.get_layer("head"), best)
    names = class_names(classifier)
    return maps, [f"{names[number]} {shown.format(row[number])}" for number, row in zip(best, outputs)]
