"""Evaluates a segmentation model on whole pictures: IoU of each class, mean IoU, pixel accuracy.

The scores come from one confusion matrix over all pixels of all pictures, at the size of their labels. They are not
means of scores of single pictures.
"""

import itertools

import numpy as np
from keras import ops

from keras_cnv2.segmentation import ConfusionMatrix, Segmenter

from ..data.scenes.augment import resize_image, scaled_size
from ..data.shares import Share
from ..distribute.devices import ONE_DEVICE
from ..errors import RecipeError
from .speed import Speed

# Scales of the multi-scale evaluation, which also mirrors pictures (mmsegmentation).
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def evaluate(model, source, recipe, devices=ONE_DEVICE):
    """Evaluates a model on the validation pictures of a source. Each worker predicts a part of them, on one device.

    Args:
        model: A model from images to logits of the images' size, like `keras_cnv2.segmentation.UPerNet`.
        source: A `training.data.scenes.task.Scenes`.
        recipe: Has `short_side`, `window`, `stride` and `multi_scale`.
        devices: `training.distribute.devices.Devices`.

    Returns:
        A dict with "mean_iou", "pixel_accuracy", "mean_accuracy", "iou", a dict from class names to their IoU (`None`
        for classes in neither labels nor predictions), "images" and "images_per_second"; with `recipe.multi_scale`,
        also "mean_iou_multi_scale" and "pixel_accuracy_multi_scale".

    Raises:
        RecipeError: If there are no pictures to evaluate on.
        DataError: If labels are invalid, or too many pictures cannot be read.
    """
    counts, images, rate = _counted(predictor(model, recipe), source, devices)
    scores = counts.scores()
    figures = {
        **scores,
        "iou": dict(zip(source.class_names, scores["iou"])),
        "images": images,
        "images_per_second": rate,
    }
    if recipe.multi_scale:
        counts, *_ = _counted(predictor(model, recipe, SCALES), source, devices)
        figures |= {f"{name}_multi_scale": counts.scores()[name] for name in ("mean_iou", "pixel_accuracy")}
    return figures


def _counted(predict, source, devices):
    """Returns the `ConfusionMatrix` of all workers, the number of pictures, and the number per second."""
    counts = ConfusionMatrix(len(source.class_names), source.ignore_label)
    images = 0
    with Speed(source.validation_size, devices.is_chief) as speed:
        for pixels, labels, _ in source.whole(Share(devices.worker, devices.workers)):
            counts.update_state(labels[None], predict(pixels, labels.shape)[None])
            images += 1
            speed.step(devices.workers)
    parts = devices.gather({"images": images, "counts": [ops.convert_to_numpy(v).tolist() for v in counts.variables]})
    images = sum(part["images"] for part in parts)
    if not images:
        raise RecipeError("data must have pictures to evaluate on. Received: none that can be read")
    for variable, *values in zip(counts.variables, *(part["counts"] for part in parts)):
        variable.assign(np.sum(values, axis=0, dtype="int32"))
    return counts, images, speed.rate(images, devices.workers)


def predictor(model, recipe, scales=(1.0,)):
    """Returns a function that predicts the class map of a picture as the recipe's evaluation does.

    For each scale, the original picture is resized; the probabilities of all scales are averaged.

    Args:
        model: As in `evaluate`.
        recipe: As in `evaluate`.
        scales: Floats, factors on the picture's size. With more than one, each scale is also predicted mirrored.

    Returns:
        A function from pixels `(height, width, 3)` and a size, (height, width), to a class map of that size, an int32
        array.
    """
    segmenter = Segmenter(model, recipe.window, recipe.stride, flip=len(scales) > 1)

    def probabilities(pixels, size, scale):
        target = scaled_size(pixels, recipe.short_side, scale)
        image = resize_image(pixels, target, (0, 0), target)
        return segmenter.probabilities(image[None], size)[0]

    def predict(pixels, size):
        views = sum(probabilities(pixels, size, scale) for scale in scales)
        return ops.convert_to_numpy(ops.argmax(views, axis=-1)).astype("int32")

    return predict


def examples(model, source, recipe, count):
    """Predicts a fixed selection of validation pictures, as in `evaluate`.

    Args:
        model, source, recipe: As in `evaluate`.
        count: Int, the maximum number of pictures.

    Returns:
        Three lists: pixels, labels with -1 for ignored pixels, and predictions.
    """
    predict = predictor(model, recipe)
    pictures = itertools.islice(source.whole(mixed=True), count)
    found = [
        (pixels, np.where(labels == source.ignore_label, -1, labels), predict(pixels, labels.shape))
        for pixels, labels, _ in pictures
    ]
    return tuple(map(list, zip(*found)))
