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
        data: The data set: a folder in the layout of Pascal VOC, COCO, YOLO or labelled PNGs, "tfds:NAME" for
            TensorFlow Datasets, or "digits" for pages of handwritten digits.
        image_size: Side of the square images in training and evaluation, in pixels; a multiple of 32.
        head_width: Number of channels of the feature pyramid and of the heads.
        head_convs: Number of convolutions of each head of "retinanet", or of the mask head, before the last one.
        head_units: Number of units of the two dense layers of the box head; not for "retinanet".
        anchor_scale: Sides of the square anchors of each level in strides of the level: 8 gives 32 to 512 pixels; small
            objects need fewer. Not for "retinanet".
        proposals: Number of proposals for an image, selected from as many anchors of each level of the pyramid, in
            training from twice as many; not for "retinanet".
        anchor_samples: Number of anchors of an image in the losses, at most half of them matched to objects; not for
            "retinanet".
        box_samples: Number of proposals of an image in the losses, at most a quarter of them matched to objects; not
            for "retinanet".
        scale: Smallest and largest factor by which pictures are resized; 1 fits a picture into `image_size`.
        max_boxes: Maximum number of boxes in an image.
        min_box: Boxes with a shorter side than this, in pixels of the image, are left out.
        nms: "soft" lowers the scores of boxes that overlap better ones; "hard" removes these boxes; "linear" lowers the
            scores of boxes that overlap a better one by more than `iou_threshold`.
        score_threshold: The exported model leaves out boxes with a lower score; the evaluation counts them.
        iou_threshold: Overlap (IoU) from which "hard" removes boxes and "linear" lowers their scores.

    Source: ConvNeXt V2 (arXiv 2301.00808), appendix, "COCO object detection"; RetinaNet (arXiv 1708.02002); Mask R-CNN
    (arXiv 1703.06870).
    """

    head: str = "retinanet"
    head_width: int = 256
    head_convs: int = 4
    head_units: int = 1024
    anchor_scale: float = 8.0
    proposals: int = 1000
    anchor_samples: int = 256
    box_samples: int = 512
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
        for name in ("head_width", "head_convs", "head_units", "proposals", "max_boxes"):
            check(name, getattr(self, name) > 0, "positive")
        check("anchor_scale", self.anchor_scale > 0, "positive")
        check("anchor_samples", self.anchor_samples >= 2, "at least 2")
        check("box_samples", self.box_samples >= 4, "at least 4")
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

# The configuration of mmdetection's ConvNeXt V2 project, from which the published result of base comes. Its soft
# suppression is the linear one of mmcv with the threshold of the base configuration. Give `data`, a folder in COCO
# layout: coco/2017 of TensorFlow Datasets has no masks.
_COCO_MASK_RCNN = {
    **_COCO,
    "data": None,
    "head": "mask_rcnn",
    "min_box": 0.01,
    "nms": "linear",
    "layer_decay_type": "group",
    "dtype": "mixed_float16",
}

_SMALL = {**SMALL, "head_width": 64, "head_convs": 2, "scale": (0.8, 1.25), "clip_norm": 10.0}

_SMALL_MASK_RCNN = {"head": "mask_rcnn", "head_units": 256, "proposals": 200, "box_samples": 128}

# Untrained layers have no use for layer-wise decay, mirrored digits are no digits, and a page has at most 15 of them.
_DIGITS = {
    **_SMALL_MASK_RCNN,
    "data": "digits",
    "anchor_scale": 4.0,
    "proposals": 100,
    "anchor_samples": 128,
    "box_samples": 64,
    "max_boxes": 15,
    "lr": 1e-3,
    "iterations": 2000,
    "warmup_iterations": 200,
    "report_every": 500,
    "layer_decay": 1.0,
    "drop_path": 0.0,
    "flip": False,
    "scale": (0.9, 1.1),
}

DETECTION = {
    "objects": Detection(**_SMALL),
    # Blood cells, 205 training pictures.
    "bccd": Detection(max_boxes=50, **_SMALL),
    # For users' own pictures with masks.
    "instances": Detection(**_SMALL, **_SMALL_MASK_RCNN),
    # Handwritten digits on textured pages, made without network.
    "digits": Detection(**{**_SMALL, **_DIGITS}),
    "coco": Detection(model="base", layer_decay=0.9, drop_path=0.4, **_COCO),
    "coco_tiny": Detection(model="tiny", layer_decay=0.95, drop_path=0.2, **_COCO),
    "coco_large": Detection(model="large", layer_decay=0.9, drop_path=0.5, **_COCO),
    "coco_huge": Detection(model="huge", layer_decay=0.9, drop_path=0.5, **_COCO),
    # Box AP 52.9, mask AP 46.4.
    "coco_mask_rcnn": Detection(model="base", layer_decay=0.95, drop_path=0.4, **_COCO_MASK_RCNN),
    # The paper's box AP is 54.4 and 55.7; which of the values that were tried it took for these sizes is not published.
    "coco_mask_rcnn_large": Detection(model="large", layer_decay=0.95, drop_path=0.5, **_COCO_MASK_RCNN),
    "coco_mask_rcnn_huge": Detection(model="huge", layer_decay=0.95, drop_path=0.5, **_COCO_MASK_RCNN),
}
