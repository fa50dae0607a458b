"""Detects objects in image files."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.detection.anchors import MULTIPLE
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.detection.two_stage.paste import THRESHOLD, paste_masks
from keras_cnv2.images.classes import numbered
from keras_cnv2.images.pictures import READING, load_pixels
from keras_cnv2.models.heads import as_taken

BATCH = 8


class Detection(NamedTuple):
    """One detected object.

    Args:
        name: The name of its class.
        score: Float in 0..1.
        box: Four floats: left, top, right, bottom in pixels of the original image.
        mask: Bool array `(height, width)`, which pixels of the original image are the object; `None` if the model
            predicts no masks.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


def image_size_for(model, image_size=None):
    """Returns the side of a detector's square images: `image_size`, or by default that of the model.

    Raises:
        ValueError: If the size is not a multiple of 32, differs from the backbone's input size, or is not given while
            the model has none.
    """
    sides = {*model.backbone.input_shape[1:3]}
    if image_size is None:
        image_size = model.image_size
    fits = is_positive_int(image_size) and image_size % MULTIPLE == 0
    if not fits or sides - {None, image_size}:
        given = sides - {None}
        raise ValueError(
            f"image_size must be a multiple of {MULTIPLE}"
            + (f" and match the backbone's image size, {given}" if given else "")
            + (": give that of the training, the model was saved without one" if image_size is None else "")
            + f". Received: image_size={image_size!r}"
        )
    return int(image_size)


def class_names_of(model, names=None):
    """Returns the names of a detector's classes: `names`, its own, or "class 0" and so on.

    Raises:
        ValueError: If there are more or fewer names than classes.
    """
    if names is not None and len(names) != model.classes:
        raise ValueError(f"class_names must be {model.classes} names, one per class. Received: {len(names)} names")
    return names or model.class_names or numbered(model.classes)


def detect(model, paths, image_size=None, score_threshold=0.3, reading=READING):
    """Detects objects in image files, one batch at a time.

    Args:
        model: A model made by `keras_cnv2.detection.retinanet` or `keras_cnv2.detection.mask_rcnn`, or a `Detector`.
        paths: Iterable of paths of image files.
        image_size: Optional int, see `image_size_for`.
        score_threshold: Float in [0, 1), see `Detector`. Ignored for a `Detector`, which has its own.
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.

    Yields:
        Pairs (path, list of `Detection`), the highest score first. For a file that cannot be read as an image, the pair
        (path, error).
    """
    detector = model if isinstance(model, Detector) else Detector(model, score_threshold=score_threshold)
    size = image_size_for(detector.model, image_size)
    names = class_names_of(detector.model)
    paths = list(paths)
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        fitted = [_try_to_fit(path, size, reading) for path in batch]
        found = iter(_found(detector, [one for one in fitted if not isinstance(one, Exception)], size, names))
        for path, one in zip(batch, fitted):
            yield path, one if isinstance(one, Exception) else next(found)


def _try_to_fit(path, size, reading):
    """Returns the resized image, its scale, and the original height and width; or the error."""
    try:
        pixels = load_pixels(path, size, reading)
    except (OSError, ValueError) as error:
        return error
    image, scale = fit_picture(pixels, size)
    return image.numpy(), float(scale), pixels.shape[:2]


def _found(detector, fitted, size, names):
    """Yields the list of detections of each image in a batch."""
    if not fitted:
        return
    images = np.zeros((BATCH if len(fitted) > 1 else 1, size, size, 3), "float32")  # at most two shapes are compiled
    images[: len(fitted)] = [image for image, _, _ in fitted]
    found = detector.predict_on_batch(np.asarray(as_taken(detector.model, images)))
    for number, (_, scale, (height, width)) in enumerate(fitted):
        count = int(found["count"][number])
        boxes = found["boxes"][number, :count] / scale
        clipped = np.clip(boxes, 0, [width, height, width, height])
        detections = []
        for one, (kind, score, box) in enumerate(zip(found["classes"][number], found["scores"][number], clipped)):
            if not (box[2:] > box[:2]).all():  # it is in the padding, outside the picture
                continue
            mask = None
            if detector.has_masks:
                mask = _mask(found["masks"][number, one], boxes[one], height, width, detector.model.variant)
            detections.append(Detection(names[kind], float(score), tuple(map(float, box)), mask))
        yield detections


def _mask(probabilities, box, height, width, variant):
    """Pastes the mask of one object into its picture: those of all at once may not fit into memory."""
    masks, boxes = (ops.convert_to_tensor(values[None, None], "float32") for values in (probabilities, box))
    pasted = paste_masks(masks, boxes, height, width, variant.padded_paste)
    return ops.convert_to_numpy(pasted)[0, 0] >= THRESHOLD
