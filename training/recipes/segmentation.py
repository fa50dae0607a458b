"""Recipes of semantic segmentation."""

from dataclasses import dataclass

from .dense import SMALL, Dense

HEADS = ("upernet", "deeplab")


@dataclass(frozen=True, kw_only=True)
class Segmentation(Dense):
    """Training of an encoder with a segmentation head on pictures with a class for each pixel.

    Args:
        data: The data set: a folder of pictures and label PNGs, or "tfds:NAME" for TensorFlow Datasets.
        image_size: Side of the square training crops, in pixels.
        head: "upernet", as in the paper; or "deeplab", DeepLabV3+ from KerasCV, which takes images of one size only:
            give window and stride.
        head_width: Number of channels of the head; for "upernet" only.
        classes: File with the names of the classes, one per line, or the number of classes; none for the folder's
            classes.txt, or else as many as its labels have.
        ignore_label: Label of pixels that are ignored.
        reduce_zero_label: Whether label 0 is ignored and all others are reduced by one, as for ADE20K.
        short_side: Shorter side of pictures before random scaling and in evaluation, in pixels; none for their own
            size.
        scale: Smallest and largest factor by which pictures are rescaled.
        photometric: Whether brightness, contrast, saturation and hue are changed at random.
        window: Side of the sliding windows in evaluation, in pixels; none for whole pictures.
        stride: Distance between these windows, in pixels.
        multi_scale: Whether evaluation also reports the result with six scales from 0.5 to 1.75, each also mirrored.

    Source: ConvNeXt V2 (arXiv 2301.00808), appendix, "ADE20K semantic segmentation"; other values as in
    mmsegmentation's set-up for ConvNeXt.
    """

    head: str = "upernet"
    head_width: int = 512
    classes: str | None = None
    ignore_label: int = 255
    reduce_zero_label: bool = False
    short_side: int | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    photometric: bool = True
    window: int | None = None
    stride: int | None = None
    multi_scale: bool = False

    def __post_init__(self):
        super().__post_init__()
        check = self.check
        check("head", self.head in HEADS, f"one of {', '.join(HEADS)}")
        check("head_width", self.head_width > 0, "positive")
        check("ignore_label", 0 <= self.ignore_label <= 255, "from 0 to 255")
        check("short_side", self.short_side is None or self.short_side >= 32, "none or at least 32")
        check("window", self.window is None or self.window >= 32, "none or at least 32")
        whole = self.window is None
        check("stride", self.stride is None if whole else 0 < (self.stride or 0) <= self.window, _STRIDE)
        if self.head == "deeplab":
            check("image_size", self.image_size % 32 == 0, "a multiple of 32 for head=deeplab")
            check("window", self.window == self.image_size, f"image_size={self.image_size} for head=deeplab")

    @property
    def sides(self):
        return (self.image_size, self.image_size) if self.head == "deeplab" else super().sides


_STRIDE = "from 1 to window, or none without windows"

# 160k iterations at image size 512, batch size 16. The paper's mIoU: base 52.1, large 53.7, huge 55.0. For lr (1e-4,
# 2e-4, 3e-4), layer decay (0.8, 0.9) and drop path (0.1 to 0.4) the paper gives only the values that were tried, not
# the best ones for each size. Give `data`, the folder ADEChallengeData2016: scene_parse150 of TensorFlow Datasets has
# the instances of 100 classes, not the 150 classes of pixels.
_ADE20K = {
    "weights": "fcmae_ft_in1k",
    "image_size": 512,
    "batch_size": 16,
    "lr": 1e-4,
    "iterations": 160_000,
    "warmup_iterations": 1500,
    "report_every": 16_000,
    "weight_decay": 0.05,
    "betas": (0.9, 0.999),
    "reduce_zero_label": True,
    "short_side": 512,
    "window": 512,
    "stride": 341,
}

_SMALL = {**SMALL, "head_width": 64}

SEGMENTATION = {
    "scenes": Segmentation(**_SMALL),
    # Street scenes, 367 training pictures, 11 classes; label 11 marks pixels without a class.
    "camvid": Segmentation(ignore_label=11, **_SMALL),
    "ade20k": Segmentation(model="base", layer_decay=0.9, layer_decay_type="group", drop_path=0.4, **_ADE20K),
    "ade20k_tiny": Segmentation(model="tiny", layer_decay=0.9, drop_path=0.2, **_ADE20K),
    "ade20k_large": Segmentation(model="large", layer_decay=0.9, layer_decay_type="group", drop_path=0.4, **_ADE20K),
    "ade20k_huge": Segmentation(model="huge", layer_decay=0.9, layer_decay_type="group", drop_path=0.4, **_ADE20K),
}
