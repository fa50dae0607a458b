"""Recipes of object detection."""

from dataclasses import dataclass

from .dense import SMALL, Dense

HEADS = ("retinanet", "mask_rcnn", "faster_rcnn")
NMS = ("soft", "hard", "linear")


@dataclass(frozen=True, kw_only=True)
class Detection(Dense):
    """Training of an encoder with the heads of a detector on pictures with boxes.

    Args:
        head: "retinanet"; "mask_rcnn", which also predicts masks and needs data with masks; or "faster_rcnn", which is
            Mask R-CNN without masks.
        data: The data set: a folder in Pascal VOC or COCO layout, or "tfds:NAME" for TensorFlow Datasets.
        image_size: Side of the square images in training and evaluation, in pixels; a multiple of 32.
        head_width: Number of channels of the feature pyramid and of the heads.
        head_convs: Number of convolutions of each head before its last one.
        scale: Smallest and largest factor by which pictures are resized; 1 fits a picture into `image_size`.
        max_boxes: Maximum number of boxes in an image.
        min_box: Boxes with a shorter side than this, in pixels of the image, are left out.
        nms: "soft" lowers the scores of boxes that overlap better ones; "hard" removes these boxes; "linear" lowers the
            scores of boxes that overlap a better one by more than `iou_threshold`.
        score_threshold: The exported model leaves out boxes with a lower score; the evaluation counts them.
        iou_threshold: Overlap (IoU) from which "hard" removes boxes and "linear" lowers their scores.

    Source: ConvNeXt V2 (arXiv 2301.00808), appendix, "COCO object detection"; RetinaNet (arXiv 1708.02002).
    """

    head: str = "retinanet"
    head_width: int = 256
    head_convs: int = 4
    scale: tuple[float, float] = (0.1, 2.0)
    max_boxes: int = 100
    min_box: float = 1.0
    nms: str = "soft"
    score_threshold: float = 0.05
    iou_threshold: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check = self.check
        check("image_size", self.image_size % 32 == 0, "a multiple of 32")
        for name in ("head_width", "head_convs", "max_boxes"):
            check(name, getattr(self, name) > 0, "positive")
        check("min_box", self.min_box >= 0, "0 or more")
        check("head", self.head in HEADS, f"one of {', '.join(HEADS)}")
        check("nms", self.nms in NMS, f"one of {', '.join(NMS)}")
        check("score_threshold", 0 <= self.score_threshold < 1, "from 0 to below 1")
        check("iou_threshold", 0 < self.iou_threshold <= 1, "above 0 and up to 1")

    @property
    def masks(self):
        """Whether the model predicts masks, and the data must have them."""
        return self.head == "mask_rcnn"


# 36 epochs of 118,287 pictures in batches of 32. For layer decay (0.9, 0.95) and drop path (0.2 to 0.5) the paper gives
# only the values that were tried, not the best ones for each size.
_COCO = {
    "data": "tfds:coco/2017",
    "weights": "fcmae_ft_in1k",
    "image_size": 1024,
    "batch_size": 32,
    "lr": 1e-4,
    "schedule": "steps",
    "iterations": 36 * 3696,
    "warmup_iterations": 1000,
    "report_every": 3696,
    "weight_decay": 0.05,
    "betas": (0.9, 0.999),
}

_SMALL = {**SMALL, "head_width": 64, "head_convs": 2, "scale": (0.8, 1.25), "clip_norm": 10.0}

DETECTION = {
    "objects": Detection(**_SMALL),
    # Blood cells, 205 training pictures.
    "bccd": Detection(max_boxes=50, **_SMALL),
    "coco": Detection(model="base", layer_decay=0.9, drop_path=0.4, **_COCO),
    "coco_tiny": Detection(model="tiny", layer_decay=0.95, drop_path=0.2, **_COCO),
    "coco_large": Detection(model="large", layer_decay=0.9, drop_path=0.5, **_COCO),
    "coco_huge": Detection(model="huge", layer_decay=0.9, drop_path=0.5, **_COCO),
}
