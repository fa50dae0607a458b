"""Hard and soft non-maximum suppression: keeps one of several detections of the same object.

Shapes are static, and the results are deterministic on any device. `suppress` takes few of many boxes one after the
other; `is_kept` decides at once for boxes of which many may be kept, such as the proposals of Mask R-CNN.
"""

from keras import ops

from keras_cnv2.detection.boxes import overlap


def hard(iou_threshold=0.5):
    """Returns a function from overlaps with a better box to score factors: 0 above the threshold, otherwise 1."""
    return lambda overlaps: ops.cast(overlaps <= iou_threshold, overlaps.dtype)


def linear(iou_threshold=0.3):
    """Returns a function from overlaps with a better box to score factors: `1 - overlap` above the threshold, else 1.

    Source: Soft-NMS (arXiv 1704.04503), section 3, equation 2.
    """
    return lambda overlaps: ops.where(overlaps > iou_threshold, 1 - overlaps, 1.0)


def soft(sigma=0.5):
    """Returns a function from overlaps with a better box to score factors: `exp(-overlap ** 2 / sigma)`.

    Source: Soft-NMS (arXiv 1704.04503), section 3, equation 3.
    """
    return lambda overlaps: ops.exp(-ops.square(overlaps) / sigma)


def suppress(boxes, scores, classes, factor, max_detections=100, score_threshold=0.05):
    """Repeatedly takes the box with the highest score and lowers the scores of boxes of its class that overlap it.

    Args:
        boxes: Float32 tensor `(N, C, 4)`, in "xyxy" format.
        scores: Float32 tensor `(N, C)` in [0, 1].
        classes: Int tensor `(N, C)`. Boxes of different classes do not affect each other.
        factor: Function from overlaps to factors in [0, 1]: `hard(...)` or `soft(...)`.
        max_detections: Int M, the maximum number of boxes to take.
        score_threshold: Float, at least 0. Boxes are taken while their scores, possibly lowered, are above it.

    Returns:
        {"boxes": float32 `(N, M, 4)`, "classes": int32 `(N, M)`, "scores": float32 `(N, M)`, "count": int32 `(N,)`},
        sorted by score, the highest first; from `count` on, all values are -1. Among equal scores, the first box is
        taken first.
    """
    classes = ops.cast(classes, "int32")
    numbers, slots = ops.arange(boxes.shape[1], dtype="int32"), ops.arange(max_detections, dtype="int32")

    def is_more(slot, left, taken, taken_scores):
        return (slot < max_detections) & ops.any(left > score_threshold)

    def take_best(slot, left, taken, taken_scores):
        best_score = ops.max(left, axis=-1, keepdims=True)
        # The first of them, as `ops.argmax` finds it, which Keras computes with operations that ONNX does not have.
        best = ops.min(ops.where(left == best_score, numbers, numbers[-1]), axis=-1, keepdims=True)
        overlaps = overlap(rows_of(boxes, best), boxes)[:, 0]
        left = ops.where(classes == rows_of(classes, best), left * factor(overlaps), left)
        left = ops.where(numbers == best, -1.0, left)
        taken, taken_scores = (
            ops.where(slots == slot, new, old) for new, old in ((best, taken), (best_score, taken_scores))
        )
        return slot + 1, left, taken, taken_scores

    all_slots = (ops.shape(scores)[0], max_detections)
    nothing = ops.zeros(all_slots, "int32"), -ops.ones(all_slots, scores.dtype)
    *_, taken, taken_scores = ops.while_loop(is_more, take_best, (ops.convert_to_tensor(0, "int32"), scores, *nothing))
    is_there = taken_scores > score_threshold  # the loop goes on until all images of the batch are done
    return {
        "boxes": ops.where(is_there[..., None], rows_of(boxes, taken), -1.0),
        "classes": ops.where(is_there, rows_of(classes, taken), -1),
        "scores": ops.where(is_there, taken_scores, -1.0),
        "count": ops.sum(ops.cast(is_there, "int32"), axis=-1),
    }


def is_kept(boxes, is_box, iou_threshold):
    """Applies hard suppression to sorted boxes of one class, all of which may be kept.

    A box is kept unless a better one that is kept overlaps it. This is solved for all boxes at once: repeatedly, boxes
    are kept that no box overlaps that is kept so far. After k rounds the first k boxes are right, and usually all boxes
    after a few rounds.

    Args:
        boxes: Float32 tensor `(N, K, 4)`, the best one first.
        is_box: Bool tensor `(N, K)`: false for padding.
        iou_threshold: Float in [0, 1], the overlap above which a box is removed.

    Returns:
        A bool tensor `(N, K)`.
    """
    number = ops.arange(boxes.shape[1], dtype="int32")
    removes = (overlap(boxes, boxes) > iou_threshold) & (number[None, :, None] > number[None, None, :])
    removes = ops.cast(removes & is_box[:, None, :], "float32")  # (N, removed, by)

    def has_changed(kept, last):
        return ops.any(kept != last)

    def again(kept, last):
        removed = ops.matmul(removes, ops.cast(kept, "float32")[..., None])[..., 0] > 0
        return is_box & ~removed, kept

    kept, _ = ops.while_loop(has_changed, again, again(is_box, is_box))
    return kept


def best_of(boxes, scores, number):
    """Selects the pairs of a box and a class with the highest scores.

    Args:
        boxes: Float tensor `(N, A, 4)`, or `(N, A, classes, 4)` where each class has its own boxes.
        scores: Float tensor `(N, A, classes)`.
        number: Int, the maximum number of pairs.

    Returns:
        Boxes `(N, C, 4)`, scores and int32 classes `(N, C)`, where C is `number`, or less if there are fewer pairs.
    """
    classes = scores.shape[-1]
    # The boxes of the best `number` pairs are among the `number` boxes with the best scores, so few pairs are sorted.
    _, rows = ops.top_k(ops.max(scores, axis=-1), min(number, scores.shape[1]))
    pairs = ops.reshape(rows_of(scores, rows), (-1, rows.shape[1] * classes))
    best, found = ops.top_k(pairs, min(number, pairs.shape[1]))
    if len(boxes.shape) == 4:
        chosen = rows_of(ops.reshape(rows_of(boxes, rows), (-1, rows.shape[1] * classes, 4)), found)
    else:
        chosen = rows_of(boxes, rows_of(rows, found // classes))
    return chosen, best, found % classes


def rows_of(values, numbers):
    """Takes the rows with the indices `(N, K)` from `(N, C, ...)`. Returns `(N, K, ...)`."""
    numbers = ops.reshape(numbers, (-1, numbers.shape[1]) + (1,) * (len(values.shape) - 2))
    return ops.take_along_axis(values, numbers, axis=1)
