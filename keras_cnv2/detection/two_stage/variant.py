"""What differs between the implementations of Mask R-CNN."""

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Details of Mask R-CNN in which implementations differ, and numbers that small data sets need lower.

    ```python
    few = keras_cnv2.detection.Variant(training_proposals=200, proposals=100, box_samples=128)
    backbone = keras_cnv2.ConvNeXtV2Backbone("tiny", pyramid_norms=True)
    model = keras_cnv2.detection.mask_rcnn(backbone, classes=20, variant=few)
    ```

    The defaults are those of mmdetection, with which the paper's figures were measured.

    Args:
        anchor_scale: Positive float, the side of each level's square anchors in strides of the level: 8 gives 32, 64,
            128, 256 and 512 pixels. Objects much smaller than 32 pixels need a lower one.
        rounded_anchors: Bool, whether the sides of anchors at the origin are rounded to whole pixels.
        largest_shrinking: Bool, whether a predicted box can also be at most 62.5 times smaller than its anchor or
            proposal; that it can be at most 62.5 times larger is common to all.
        beta: Float, at least 0: absolute errors of deltas below it count quadratically in the loss (smooth L1); 0: L1.
        aligned: Bool, whether RoIAlign shifts its samples by half a position, so that positions are centres.
        samples: Int, the number of samples along each side of a bin of RoIAlign; 0: as many as the bin has positions of
            the feature map along this side, rounded up, at most 8.
        anchor_low_quality: Float. A box that no anchor fits is matched to the anchors that overlap it most, if that
            overlap is at least this value.
        proposal_low_quality: Float, the same for proposals; `None`: boxes that no proposal fits are not matched.
        own_best: Bool, whether these anchors and proposals are matched to that box even if they overlap another box
            more.
        training_candidates, candidates: Ints, the number of anchors with the highest scores in each level of the
            pyramid, in training and in prediction, to which suppression is applied.
        training_proposals, proposals: Ints, the number of proposals that are kept in training and in prediction.
        smallest_proposal: Float. Proposals with a side of less than this, in pixels, are left out; those with a side
            of 0 are always left out.
        smallest_box: Float, the same for detections.
        proposal_iou: Float in [0, 1], the overlap above which a better proposal of the same level removes another.
        anchor_samples: Int, at least 2, the number of anchors per image in the loss, at most half of them matched.
        box_samples: Int, at least 4, the number of proposals per image in the loss, at most a quarter of them matched.
        binary_masks: Bool, whether the targets of masks are rounded to 0 or 1 after they were resized.
        padded_paste: Bool, whether masks are pasted into boxes of whole pixels, with a border of zeros around the mask;
            otherwise they are interpolated at the centres of the pixels.

    Source: Mask R-CNN (arXiv 1703.06870), section 3.1, whose numbers are common to both rows: overlaps of 0.7 and 0.3
        for anchors and 0.5 for proposals, 256 anchors and 512 proposals.
    """

    anchor_scale: float = 8.0
    rounded_anchors: bool = False
    largest_shrinking: bool = True
    beta: float = 0.0
    aligned: bool = True
    samples: int = 0
    anchor_low_quality: float = 0.3
    proposal_low_quality: float | None = 0.5
    own_best: bool = True
    training_candidates: int = 2000
    candidates: int = 1000
    training_proposals: int = 1000
    proposals: int = 1000
    smallest_proposal: float = 0.0
    smallest_box: float = 0.0
    proposal_iou: float = 0.7
    anchor_samples: int = 256
    box_samples: int = 512
    binary_masks: bool = True
    padded_paste: bool = False

    def __post_init__(self):
        at_least = {"training_candidates": 1, "candidates": 1, "training_proposals": 1, "proposals": 1}
        for name, least in {**at_least, "samples": 0, "anchor_samples": 2, "box_samples": 4}.items():
            self._check(name, f"an int of at least {least}", lambda x, least=least: isinstance(x, int) and x >= least)
        for name in ("beta", "smallest_proposal", "smallest_box"):
            self._check(name, "at least 0", lambda x: x >= 0)
        self._check("anchor_scale", "a positive number", lambda x: 0 < x < float("inf"))
        for name in ("anchor_low_quality", "proposal_iou"):
            self._check(name, "from 0 to 1", lambda x: 0 <= x <= 1)
        self._check("proposal_low_quality", "None or from 0 to 1", lambda x: x is None or 0 <= x <= 1)

    def _check(self, name, allowed, is_allowed):
        value = getattr(self, name)
        if not is_allowed(value):
            raise ValueError(f"{name} must be {allowed}. Received: {name}={value!r}")


VARIANTS = {
    "mmdetection": Variant(),
    "torchvision": Variant(
        rounded_anchors=True,
        largest_shrinking=False,
        beta=1 / 9,
        aligned=False,
        samples=2,
        anchor_low_quality=0.0,
        proposal_low_quality=None,
        own_best=False,
        training_proposals=2000,
        smallest_proposal=1e-3,
        smallest_box=1e-2,
        binary_masks=False,
        padded_paste=True,
    ),
}


def variant_of(given):
    """Returns the `Variant` that a name, a dict of its fields or a `Variant` stands for."""
    if isinstance(given, Variant):
        return given
    if isinstance(given, Mapping) and given.keys() <= {field.name for field in fields(Variant)}:
        return Variant(**given)
    if not isinstance(given, str) or given not in VARIANTS:
        raise ValueError(
            f"variant must be a Variant, a dict of its fields, or one of {', '.join(VARIANTS)}. "
            f"Received: variant={given!r}"
        )
    return VARIANTS[given]
