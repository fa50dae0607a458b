"""Pictures to named boxes."""

from typing import NamedTuple

import numpy as np

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.detection.anchors import MULTIPLE
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.images.classes import numbered
from keras_cnv2.images.pictures import READING, load_pixels
from keras_cnv2.models.heads import as_taken

BATCH = 8


class Detection(NamedTuple):
    """One thing in a picture.

    Args:
        name: The name of its class.
        score: Float in 0..1.
        box: Four floats: left, top, right, bottom in the picture's pixels.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


def image_size_for(retinanet, image_size=None):
    """The side of the square images that a detector looks at: the one given, or the one that its backbone takes.

    Raises:
        ValueError: If that is no multiple of 32, or the backbone takes others, or any and none is given.
    """
    sides = {*retinanet.backbone.input_shape[1:3]}
    if image_size is None and len(sides) == 1:
        (image_size,) = sides
    fits = is_positive_int(image_size) and image_size % MULTIPLE == 0
    if not fits or sides - {None, image_size}:
        given = sides - {None}
        raise ValueError(
            f"image_size must be a multiple of {MULTIPLE}"
            + (f" that the backbone's images of {given} pixels allow" if given else "; the backbone's images have any")
            + f". Received: image_size={image_size!r}"
        )
    return int(image_size)


def class_names_of(retinanet):
    """The names of a detector's classes, or their numbers."""
    return retinanet.class_names or numbered(retinanet.classes)


def detect(retinanet, paths, image_size=None, score_threshold=0.3, reading=READING):
    """Finds things in pictures, a batch at a time.

    Args:
        retinanet: What `keras_cnv2.detection.retinanet` made, or a `Detector`.
        paths: Paths of pictures.
        image_size: Optional int, see `image_size_for`.
        score_threshold: Float in [0, 1), see `Detector`; a `Detector` has its own.
        reading: `keras_cnv2.images.pictures.Reading`, how pictures are read.

    Yields:
        Pairs of a path and its list of `Detection`s, the surest first; or of a path and the error, if it is no picture
        that can be read.
    """
    is_detector = isinstance(retinanet, Detector)
    detector = retinanet if is_detector else Detector(retinanet, score_threshold=score_threshold)
    size = image_size_for(detector.retinanet, image_size)
    names = class_names_of(detector.retinanet)
    paths = list(paths)
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        fitted = [_try_to_fit(path, size, reading) for path in batch]
        found = iter(_found(detector, [one for one in fitted if not isinstance(one, Exception)], size, names))
        for path, one in zip(batch, fitted):
            yield path, one if isinstance(one, Exception) else next(found)


def _try_to_fit(path, size, reading):
    """An image, its scale, and the sides of the picture."""
    try:
        pixels = load_pixels(path, size, reading)
    except (OSError, ValueError) as error:
        return error
    image, scale = fit_picture(pixels, size)
    return image.numpy(), float(scale), pixels.shape[:2]


def _found(detector, fitted, size, names):
    """The detections of each of these pictures."""
    if not fitted:
        return
    images = np.zeros((BATCH if len(fitted) > 1 else 1, size, size, 3), "float32")  # two shapes are compiled at most
    images[: len(fitted)] = [image for image, _, _ in fitted]
    found = detector.predict_on_batch(np.asarray(as_taken(detector.retinanet, images)))
    for number, (_, scale, (height, width)) in enumerate(fitted):
        count = int(found["count"][number])
        boxes = np.clip(found["boxes"][number, :count] / scale, 0, [width, height, width, height])
        columns = zip(found["classes"][number, :count], found["scores"][number, :count], boxes)
        yield [Detection(names[kind], float(score), tuple(map(float, box))) for kind, score, box in columns]
