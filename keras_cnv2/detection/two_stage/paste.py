"""`paste_masks`: masks of detections in the image."""

from typing import Any

from keras import ops

from keras_cnv2.detection.two_stage.roi_align import tents

# The pixels with at least this probability are the object.
THRESHOLD = 0.5


def paste_masks(masks: Any, boxes: Any, height: int, width: int, padded: bool = False) -> Any:
    """Puts the masks of detections at their places in the image. It also works in graphs.

    ```python
    found = keras_cnv2.detection.Detector(model).predict(images)
    masks = keras_cnv2.detection.paste_masks(found["masks"], found["boxes"], *images.shape[1:3])
    is_object = masks >= 0.5  # (N, M, height, width)
    ```

    Args:
        masks: Float32 tensor `(N, R, S, S)` of probabilities.
        boxes: Float32 tensor `(N, R, 4)` in "xyxy" format, in pixels of the image.
        height, width: Ints, the size of the image in pixels.
        padded: Bool, whether to paste as torchvision does, see `padded_paste` of `keras_cnv2.detection.Variant`.

    Returns:
        A float32 tensor `(N, R, height, width)` of probabilities, 0 outside of the boxes.

    Source: Mask R-CNN (arXiv 1703.06870), section 3.1, "Inference".
    """
    size = masks.shape[-1]
    if padded:
        masks = ops.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weigh = _padded_weights if padded else _centre_weights
    rows = weigh(boxes[..., 1], boxes[..., 3], size, height)
    columns = weigh(boxes[..., 0], boxes[..., 2], size, width)
    has_area = ops.all(boxes[..., 2:] > boxes[..., :2], axis=-1)[..., None, None]
    return ops.where(has_area, ops.einsum("nrhi,nrij,nrwj->nrhw", rows, masks, columns), 0.0)


def _centre_weights(start, end, size, side):
    """Returns the weights `(..., side, size)` of the mask's rows or columns at the centres of the image's pixels."""
    start, end = start[..., None], end[..., None]
    pixels = ops.arange(side, dtype="float32") + 0.5
    # Beyond its border, a mask falls to 0 within half of one of its rows.
    at = ops.divide_no_nan(pixels - start, end - start) * size - 0.5
    return tents(at, size)


def _padded_weights(start, end, size, side):
    """Returns the weights `(..., side, size + 2)` for a box that is enlarged like the mask, and cut to whole pixels."""
    centre, half = (start + end) / 2, (end - start) / 2 * ((size + 2) / size)
    start, end = (_whole(edge)[..., None] for edge in (centre - half, centre + half))
    length = ops.maximum(end - start + 1, 1.0)
    pixels = ops.arange(side, dtype="float32")
    at = ops.clip((pixels - start + 0.5) * (size + 2) / length - 0.5, 0.0, size + 1.0)
    is_inside = (pixels >= start) & (pixels < start + length)
    return ops.where(is_inside[..., None], tents(at, size + 2), 0.0)


def _whole(values):
    """Drops the digits behind the point."""
    return ops.cast(ops.cast(values, "int32"), "float32")
