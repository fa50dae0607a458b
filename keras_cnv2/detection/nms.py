"""Non-maximum suppression, hard and soft: of detections of the same object one stays.

Shapes are static and the same numbers give the same detections, on any device. It takes boxes with scores, wherever
they come from (Mask R-CNN: proposals, as if of one class, and the second stage's boxes).
"""

from keras import ops

from keras_cnv2.detection.boxes import overlap


def hard(iou_threshold=0.5):
    """The factor on the scores of boxes that overlap a better one: 0 above the threshold, 1 up to it."""
    return lambda overlaps: ops.cast(overlaps <= iou_threshold, overlaps.dtype)


def soft(sigma=0.5):
    """The factor on the scores of boxes that overlap a better one: `exp(-overlap ** 2 / sigma)`.

    Source: Soft-NMS (arXiv 1704.04503), section 3, equation 3.
    """
    return lambda overlaps: ops.exp(-ops.square(overlaps) / sigma)


def suppress(boxes, scores, classes, factor, max_detections=100, score_threshold=0.05):
    """Takes the best box, lowers the scores of those of its class that overlap it, takes the best of what is left.

    Args:
        boxes: Float32 tensor `(N, C, 4)`, "xyxy".
        scores: Float32 tensor `(N, C)` in [0, 1].
        classes: Int tensor `(N, C)`. Boxes of different classes leave each other alone.
        factor: Function from overlaps to factors in [0, 1]: `hard(...)` or `soft(...)`.
        max_detections: Int M, how many boxes to take at most.
        score_threshold: Float from 0 on: boxes are taken while their scores, lowered or not, are above it.

    Returns:
        {"boxes": float32 `(N, M, 4)`, "classes": int32 `(N, M)`, "scores": float32 `(N, M)`, "count": int32 `(N,)`},
        the best first, with -1 where there is none. Of equal scores the first counts as better.
    """
    classes = ops.cast(classes, "int32")
    numbers, slots = ops.arange(boxes.shape[1], dtype="int32"), ops.arange(max_detections, dtype="int32")

    def is_more(slot, left, taken, taken_scores):
        return (slot < max_detections) & ops.any(left > score_threshold)

    def take_best(slot, left, taken, taken_scores):
        best = ops.cast(ops.argmax(left, axis=-1, keepdims=True), "int32")
        best_score = ops.max(left, axis=-1, keepdims=True)
        overlaps = overlap(_of(boxes, best), boxes)[:, 0]
        left = ops.where(classes == _of(classes, best), left * factor(overlaps), left)
        left = ops.where(numbers == best, -1.0, left)
        taken, taken_scores = (
            ops.where(slots == slot, new, old) for new, old in ((best, taken), (best_score, taken_scores))
        )
        return slot + 1, left, taken, taken_scores

    all_slots = (ops.shape(scores)[0], max_detections)
    nothing = ops.zeros(all_slots, "int32"), -ops.ones(all_slots, scores.dtype)
    *_, taken, taken_scores = ops.while_loop(is_more, take_best, (ops.convert_to_tensor(0, "int32"), scores, *nothing))
    is_there = taken_scores > score_threshold  # images of a batch may be done at different times
    return {
        "boxes": ops.where(is_there[..., None], _of(boxes, taken), -1.0),
        "classes": ops.where(is_there, _of(classes, taken), -1),
        "scores": ops.where(is_there, taken_scores, -1.0),
        "count": ops.sum(ops.cast(is_there, "int32"), axis=-1),
    }


def best_of(boxes, scores, number):
    """The best pairs of a box and a class.

    Args:
        boxes: Float tensor `(N, A, 4)`.
        scores: Float tensor `(N, A, classes)`.
        number: Int, how many pairs there are to be at most.

    Returns:
        Boxes `(N, C, 4)`, scores and int32 classes `(N, C)`, where C is `number` if there are as many pairs.
    """
    classes = scores.shape[-1]
    # Whichever pairs are among the best, so are their boxes. That leaves few pairs to be sorted.
    _, rows = ops.top_k(ops.max(scores, axis=-1), min(number, scores.shape[1]))
    pairs = ops.reshape(_of(scores, rows), (-1, rows.shape[1] * classes))
    best, found = ops.top_k(pairs, min(number, pairs.shape[1]))
    return _of(boxes, _of(rows, found // classes)), best, found % classes


def _of(values, numbers):
    """The rows of `(N, C, ...)` with the numbers `(N, K)`: `(N, K, ...)`."""
    numbers = ops.reshape(numbers, (-1, numbers.shape[1]) + (1,) * (len(values.shape) - 2))
    return ops.take_along_axis(values, numbers, axis=1)
