"""What the tests of detection have in common: a tiny RetinaNet and Mask R-CNN, and made-up images with boxes."""

import keras
import numpy as np

import keras_cnv2
from keras_cnv2.detection import Variant, mask_rcnn, retinanet

CLASSES = 3

# The spread of the last kernels of Mask R-CNN's heads, relative to that of others, by layer.
SPREADS = {"logits": 8, "objectness": 4}

# Few proposals.
FEW = Variant(candidates=60, proposals=20)


def _backbone(pyramid_norms=True, dtype=None, input_shape=(None, None, 3)):
    return keras_cnv2.ConvNeXtV2Backbone(
        depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), pyramid_norms=pyramid_norms, dtype=dtype, input_shape=input_shape
    )


def tiny(classes=CLASSES, pyramid_norms=True, dtype=None, input_shape=(None, None, 3), **options):
    backbone = _backbone(pyramid_norms, dtype, input_shape)
    return retinanet(backbone, classes, **{"width": 8, "convs": 1, **options})


def tiny_mask_rcnn(classes=CLASSES, dtype=None, input_shape=(None, None, 3), weights=0, **options):
    """With random weights, drawn with the seed `weights`, so that predictions differ from place to place."""
    small = {"width": 8, "units": 16, "convs": 1, "variant": FEW}
    model = mask_rcnn(_backbone(True, dtype, input_shape), classes, **{**small, **options})
    rng = np.random.default_rng(weights)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            spread = SPREADS.get(variable.path.split("/")[-2], 1)
            values = rng.normal(0, spread * np.prod(variable.shape[:-1]) ** -0.5, variable.shape)
            # Inputs after a ReLU are all positive: without this, one class would be the most probable everywhere.
            variable.assign(values - values.mean(axis=tuple(range(values.ndim - 1))))
    return model


def images(number=2, size=64, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (number, size, size, 3)).astype("float32")


def labels(*boxes_of_images, most=3):
    """Labels of images, each a list of (class, box), padded to `most` boxes."""
    boxes = np.full((len(boxes_of_images), most, 4), -1, "float32")
    classes = np.full((len(boxes_of_images), most), -1, "float32")
    for image, found in enumerate(boxes_of_images):
        for place, (number, box) in enumerate(found):
            boxes[image, place], classes[image, place] = box, number
    return {"boxes": boxes, "classes": classes}


TWO = labels([(1, (5, 5, 40, 40))], [(0, (10, 20, 30, 60)), (2, (0, 0, 9, 9))])


def iou(box, other):
    """Brute force, of two boxes."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return shared / (areas - shared) if areas > shared else 0.0


def noisy(model, spread=1.0, seed=0):
    """Gives all kernels other values, so that predictions differ from place to place, by about `spread`."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(rng.normal(0, np.prod(variable.shape[:-1]) ** -0.5, variable.shape))
    for head, values in zip((model.box_head, model.classification_head), numpy_of(model(images())).values()):
        head.prediction.kernel.assign(head.prediction.kernel * (spread / values.std()))
    return model


def numpy_of(tree):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, tree)
