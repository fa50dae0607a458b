"""Targets of the losses: which anchors and proposals are matched to which boxes, and their masks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_cnv2.detection.boxes import overlap
from keras_cnv2.detection.matching import match
from keras_cnv2.detection.two_stage.roi_align import axis_weights

# The numbers of axes of labels.
RANKS = {"boxes": 3, "classes": 2, "masks": 4}


class Labels(NamedTuple):
    """The annotated objects of a batch.

    Args:
        boxes: Float32 tensor `(N, B, 4)`.
        classes: Int32 tensor `(N, B)`, below 0 for padding.
        masks: Optional tensor `(N, B, height, width)`, above 0 where the object is.
    """

    boxes: Any
    classes: Any
    masks: Any = None

    @classmethod
    def of(cls, labels, shape, has_masks):
        """Returns the labels of `fit` with one object of padding more, so that there is at least one.

        Args:
            labels: Dict of tensors.
            shape: Shape of the images, `(N, height, width, channels)`.
            has_masks: Bool, whether masks are needed.

        Raises:
            ValueError: If labels are missing or have other shapes, or masks do not have the size of the images.
        """
        _check(labels, tuple(shape[1:3]), has_masks)
        boxes, classes = ops.cast(labels["boxes"], "float32"), ops.cast(labels["classes"], "int32")
        masks = ops.pad(_comparable(labels["masks"]), ((0, 0), (0, 1), (0, 0), (0, 0))) if has_masks else None
        return cls(
            ops.pad(boxes, ((0, 0), (0, 1), (0, 0))), ops.pad(classes, ((0, 0), (0, 1)), constant_values=-1), masks
        )


def matches_of(candidates, is_candidate, labels, positive, negative, low_quality, own_best):
    """Matches anchors or proposals to boxes, see `keras_cnv2.detection.matching.match`.

    Args:
        candidates: Float32 tensor `(N, A, 4)`, or `(A, 4)` for the same ones in all images.
        is_candidate: Bool tensor `(N, A)`: false for padding, which is neither matched nor background; or `None`.
        labels: `Labels`.
        positive, negative, low_quality, own_best: As in `match`.

    Returns:
        An int32 tensor `(N, A)`: the index of the box, `BACKGROUND` or `IGNORED` of `keras_cnv2.detection.matching`.
    """

    def of_one_image(image):
        boxes, classes, *others = image
        own, is_own = others or (candidates, None)
        overlaps = ops.where(classes >= 0, overlap(own, boxes), -1.0)
        if is_own is not None:
            overlaps = ops.where(is_own[:, None], overlaps, -1.0)
        return match(overlaps, positive, negative, low_quality, own_best)

    # One image at a time, because the overlaps of a whole batch would take gigabytes of memory.
    others = () if is_candidate is None else (candidates, is_candidate)
    return ops.map(of_one_image, (labels.boxes, labels.classes, *others))


def mask_targets(masks, matches, boxes, size, variant):
    """Returns the masks of objects inside of boxes.

    Args:
        masks: Tensor `(N, B, height, width)`, above 0 where the object is.
        matches: Int32 tensor `(N, R)`, the index of the object of each box.
        boxes: Float32 tensor `(N, R, 4)`, in pixels of the masks.
        size: Int S, the number of rows and columns of the targets.
        variant: `Variant`.

    Returns:
        A float32 tensor `(N, R, S, S)`.
    """
    height, width = masks.shape[2:]
    # As many samples as the largest box needs.
    most = -(-max(height, width) // size)

    def of_one_image(image):
        own, matched, kept = image

        def of_one_box(box):
            number, corners = box
            mask = ops.cast(ops.take(own, number, axis=0) > 0, "float32")
            rows, columns = (
                axis_weights(corners[axis], corners[axis + 2], side, size, aligned=variant.aligned, most_samples=most)
                for axis, side in ((1, height), (0, width))
            )
            return ops.matmul(ops.matmul(rows, mask), ops.transpose(columns))

        return ops.map(of_one_box, (matched, kept))

    targets = ops.map(of_one_image, (masks, matches, boxes))
    return ops.cast(targets >= 0.5, "float32") if variant.binary_masks else targets


def rows_of_labels(labels, matches):
    """Returns boxes `(N, R, 4)` and classes `(N, R)` of the matched objects; of the first one where none is matched."""
    found = ops.maximum(matches, 0)
    boxes = ops.take_along_axis(labels.boxes, found[..., None], axis=1)
    return boxes, ops.take_along_axis(labels.classes, found, axis=1)


def _comparable(masks):
    """Returns masks of a dtype that can be compared with 0, which bool cannot."""
    masks = ops.convert_to_tensor(masks)
    return ops.cast(masks, "uint8") if keras.backend.standardize_dtype(masks.dtype) == "bool" else masks


def _check(labels, sides, has_masks):
    names = ("boxes", "classes", "masks") if has_masks else ("boxes", "classes")
    if not isinstance(labels, Mapping) or not {*names} <= labels.keys():
        advice = ", or build the model with masks=False" if has_masks else ""
        raise ValueError(
            f"The labels must be a dict with {', '.join(names)}{advice}. "
            f"Received: {', '.join(labels) if isinstance(labels, Mapping) else type(labels).__name__}"
        )
    shapes = {name: tuple(labels[name].shape) for name in names}
    if any(len(shape) != RANKS[name] for name, shape in shapes.items()) or shapes["boxes"][-1] != 4:
        raise ValueError(
            "Boxes must have the shape (N, B, 4), classes (N, B) and masks (N, B, height, width). "
            f"Received: shapes {shapes}"
        )
    if len({shape[1] for shape in shapes.values()}) > 1:
        raise ValueError(f"Boxes, classes and masks must be as many for each image. Received: shapes {shapes}")
    if has_masks and shapes["masks"][2:] != sides:
        raise ValueError(f"Masks must have the size of the images, {sides}. Received: masks of shape {shapes['masks']}")
