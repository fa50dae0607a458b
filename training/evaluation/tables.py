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
    """Formats scores of `training.evaluation.detection.evaluate`: AP of each class, then COCO's metrics."""
    lines = _rows(scores["classes"], "no objects")
    figures = ", ".join(f"{name} {percent(scores[name], 'no objects')}" for name in DETECTION if name in scores)
    lines.append(f"{figures} of {_images(scores)}")
    return "\n".join(lines)


def percent(share, nothing):
    """Formats a share from 0 to 1 in percent; returns `nothing` for `None`."""
    return nothing if share is None else f"{share:.2%}"


def _rows(classes, nothing):
    """Returns a line for each class: its name and its score."""
    rows = [(printable(name), percent(figure, nothing)) for name, figure in classes.items()]
    name_width, figure_width = (max(map(len, column), default=0) for column in (zip(*rows) if rows else ([], [])))
    return [f"{name:<{name_width}}  {figure:>{figure_width}}" for name, figure in rows]


def _tops(scores):
    return f"top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%}"


def _images(scores):
    rate = scores["images_per_second"]
    return f"{scores['images']} images" + (f", {rate:.1f} images/s" if rate else "")
