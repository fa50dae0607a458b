"""Scores as text for the terminal. Imports no TensorFlow."""

from keras_cnv2.terminal import printable

DETECTION = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR100")
SEGMENTATION = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
MULTI_SCALE = "mean_iou_multi_scale"


def classification(scores):
    """Formats scores of `training.evaluation.classification.evaluate`: accuracy of each class, then top-1 and top-5."""
    lines = _rows(scores["classes"], "no images")
    lines.append(f"{_tops(scores)} of {_images(scores)}")
    if "mirrored" in scores:
        lines.append(f"with mirror images {_tops(scores['mirrored'])}")
    return "\n".join(lines)


def segmentation(scores):
    """Formats scores of `training.evaluation.segmentation.evaluate`: IoU of each class, then the means."""
    lines = _rows(scores["iou"], "no pixels")
    means = ", ".join(f"{label} {percent(scores[name], 'no pixels')}" for name, label in SEGMENTATION.items())
    lines.append(f"{means} of {_images(scores)}")
    if MULTI_SCALE in scores:
        lines.append(f"at several scales and mirrored: mean IoU {percent(scores[MULTI_SCALE], 'no pixels')}")
    return "\n".join(lines)


def detection(scores):
    """Formats scores of `training.evaluation.detection.evaluate`: AP of each class, then COCO's metrics.

    With masks, each class has a second column, and a second line of metrics follows the first.
    """
    if "mask_AP" not in scores:
        lines = _rows(scores["classes"], "no objects")
        lines.append(f"{_coco(scores)} of {_images(scores)}")
        return "\n".join(lines)
    heads = ["boxes", "masks"]
    lines = _rows(scores["classes"], "no objects", scores["mask_classes"], heads=heads)
    of_masks = {name.removeprefix("mask_"): value for name, value in scores.items() if name.startswith("mask_")}
    lines += [f"boxes: {_coco(scores)}", f"masks: {_coco(of_masks)}", f"of {_images(scores)}"]
    return "\n".join(lines)


def _coco(scores):
    return ", ".join(f"{name} {percent(scores[name], 'no objects')}" for name in DETECTION if name in scores)


def percent(share, nothing):
    """Formats a share from 0 to 1 in percent; returns `nothing` for `None`."""
    return nothing if share is None else f"{share:.2%}"


def _rows(classes, nothing, *others, heads=()):
    """Returns a line for each class: its name and its scores.

    Args:
        classes: Dict from the names of classes to their scores.
        nothing: String for scores that are `None`.
        *others: Further dicts with the same names.
        heads: Strings, the titles of the columns of scores; without them, there is no line of titles.
    """
    rows = [("", *heads)] if heads else []
    rows += [(printable(name), *(percent(scores[name], nothing) for scores in (classes, *others))) for name in classes]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def _tops(scores):
    return f"top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%}"


def _images(scores):
    rate = scores["images_per_second"]
    return f"{scores['images']} images" + (f", {rate:.1f} images/s" if rate else "")
