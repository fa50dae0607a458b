"""Makes mask_rcnn.npz: the numbers of torchvision's Mask R-CNN for the case of mask_rcnn_case.py.

python tests/golden/make_mask_rcnn.py

Needs torch and torchvision, in an environment of their own, with detection's operators on the CPU. Tried with torch
2.13.0 and torchvision 0.28.0. Boxes' deltas and classes are reordered: here they are y, x, height, width, and the
background is last.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import mask_rcnn_case as case
import numpy as np
import torch
from torch import nn
from torchvision.models.detection import anchor_utils, faster_rcnn, image_list, mask_rcnn, roi_heads, rpn
from torchvision.models.detection.transform import paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign, feature_pyramid_network, roi_align

LEVELS = ("2", "3", "4", "5")

# The module, which the function of this name hides.
python_roi_align = sys.modules["torchvision.ops.roi_align"]

# The compiled RoIAlign has zeros for samples beyond the border, its form in Python has not.
interpolated = python_roi_align._bilinear_interpolate


def zero_beyond_border(features, numbers, y, x, *masks):
    (rows, columns), values = features.shape[-2:], interpolated(features, numbers, y, x, *masks)
    is_inside = ((y >= -1) & (y <= rows))[:, None, :, None, :, None] & ((x >= -1) & (x <= columns))[
        :, None, None, :, None
    ]
    return torch.where(is_inside, values, 0)


python_roi_align._bilinear_interpolate = zero_beyond_border

# One box at a time: an operator in Python may hold all samples of all boxes, gigabytes for masks of the image's size.
all_at_once = roi_heads.project_masks_on_boxes
roi_heads.project_masks_on_boxes = lambda masks, boxes, numbers, size: torch.cat(
    [all_at_once(masks, box[None], number[None], size) for box, number in zip(boxes, numbers)]
)
ORDER = [1, 0, 3, 2]


def set_weights(layer, name, transposed=None):
    kernel, bias = (case.weights()[f"{name}/{part}"] for part in ("kernel", "bias"))
    kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    if transposed is not None:
        kernel, bias = transposed(kernel, bias)
    assert layer.weight.shape == kernel.shape, (name, layer.weight.shape, kernel.shape)
    layer.weight.data, layer.bias.data = torch.tensor(kernel.copy()), torch.tensor(bias.copy())


def reordered(kernel, bias):
    """Deltas in the order x, y, width, height."""
    return (array.reshape(-1, 4, *array.shape[1:])[:, ORDER].reshape(array.shape) for array in (kernel, bias))


def background_first(kernel, bias):
    return np.roll(kernel, 1, 0), np.roll(bias, 1, 0)


def with_background(kernel, bias):
    kernel, bias = reordered(kernel, bias)
    return (np.concatenate([np.zeros_like(array[:4]), array]) for array in (kernel, bias))


def of_channels_first(kernel, bias):
    """The weights of features that are flattened with the channels first."""
    units = len(kernel)
    return kernel.reshape(units, 7, 7, case.WIDTH).transpose(0, 3, 1, 2).reshape(units, -1), bias


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        convs = [nn.Conv2d(3, channels, stride, stride) for stride, channels in case.CHANNELS.items()]
        self.convs = nn.ModuleList(convs)
        self.fpn = feature_pyramid_network.FeaturePyramidNetwork(
            [*case.CHANNELS.values()], case.WIDTH, feature_pyramid_network.LastLevelMaxPool()
        )
        for number, level in enumerate(LEVELS):
            set_weights(convs[number], f"backbone/{level}")
            set_weights(self.fpn.inner_blocks[number][0], f"pyramid/lateral_{level}")
            set_weights(self.fpn.layer_blocks[number][0], f"pyramid/output_{level}")

    def forward(self, images):
        return self.fpn(OrderedDict((level, conv(images)) for level, conv in zip(LEVELS, self.convs)))


class Sampler:
    """In place of torchvision's random one: the largest of given numbers."""

    def __init__(self, number, fraction, keys):
        self.number, self.most, self.keys = number, int(number * fraction), keys

    def __call__(self, labels):
        kinds = [], []
        for image, found in enumerate(labels):
            keys = torch.tensor(self.keys(image, len(found)))
            matched = self._best(found >= 1, keys, self.most)
            background = self._best(found == 0, keys, self.number - int(matched.sum()))
            kinds[0].append(matched)
            kinds[1].append(background)
        return kinds

    @staticmethod
    def _best(is_one, keys, number):
        order = torch.where(is_one, keys, torch.tensor(-1.0)).argsort(descending=True, stable=True)
        chosen = torch.zeros_like(is_one)
        chosen[order[:number]] = True
        return chosen & is_one


def modules():
    backbone = Backbone()
    sizes = tuple((size,) for size in (32, 64, 128, 256, 512))
    head = rpn.RPNHead(case.WIDTH, 3)
    set_weights(head.conv[0][0], "proposal_head/conv")
    set_weights(head.cls_logits, "proposal_head/objectness")
    set_weights(head.bbox_pred, "proposal_head/deltas", reordered)
    kept = {"training": 2000, "testing": 1000}
    proposer = rpn.RegionProposalNetwork(
        anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5), head, 0.7, 0.3, 256, 0.5, kept, kept, 0.7
    )
    box_head = faster_rcnn.TwoMLPHead(case.WIDTH * 49, case.UNITS)
    set_weights(box_head.fc6, "box_head/dense_1", of_channels_first)
    set_weights(box_head.fc7, "box_head/dense_2")
    predictor = faster_rcnn.FastRCNNPredictor(case.UNITS, case.CLASSES + 1)
    set_weights(predictor.cls_score, "box_head/logits", background_first)
    set_weights(predictor.bbox_pred, "box_head/deltas", with_background)
    masks = mask_rcnn.MaskRCNNHeads(case.WIDTH, (case.WIDTH,) * case.CONVS, 1)
    for number in range(case.CONVS):
        set_weights(masks[number][0], f"mask_head/conv_{number}")
    mask_predictor = mask_rcnn.MaskRCNNPredictor(case.WIDTH, case.WIDTH, case.CLASSES + 1)
    # Keras keeps kernels of transposed convolutions as (..., outputs, inputs), PyTorch as (inputs, outputs, ...).
    kernel, bias = (torch.tensor(case.weights()[f"mask_head/double/{part}"]) for part in ("kernel", "bias"))
    mask_predictor.conv5_mask.weight.data, mask_predictor.conv5_mask.bias.data = kernel.permute(3, 2, 0, 1), bias
    set_weights(
        mask_predictor.mask_fcn_logits,
        "mask_head/logits",
        lambda kernel, bias: (np.concatenate([np.zeros_like(array[:1]), array]) for array in (kernel, bias)),
    )
    second = roi_heads.RoIHeads(
        MultiScaleRoIAlign([*LEVELS], 7, 2),
        box_head,
        predictor,
        0.5,
        0.5,
        512,
        0.25,
        None,
        0.05,
        0.5,
        100,
        MultiScaleRoIAlign([*LEVELS], 14, 2),
        masks,
        mask_predictor,
    )
    return backbone, proposer, second


def numbers(height, width, backbone, proposer, second):
    """Returns {name: array} for images of one size."""
    found = {}
    images = torch.tensor(case.images(height, width)).permute(0, 3, 1, 2)
    batch = image_list.ImageList(images, [(height, width)] * 2)
    levels = backbone(images)
    found["p2"], found["p6"] = (levels[name].permute(0, 2, 3, 1) for name in ("2", "pool"))
    found["p2"] = found["p2"][:, ::4, ::4]
    found["anchors"] = proposer.anchor_generator(batch, [*levels.values()])[0]
    logits, deltas = rpn.concat_box_prediction_layers(*proposer.head([*levels.values()]))
    found["objectness"], found["deltas"] = logits.reshape(2, -1), deltas.reshape(2, -1, 4)[..., ORDER]

    proposer.eval(), second.eval()
    proposals, _ = proposer(batch, levels)
    for image, boxes in enumerate(proposals):
        found[f"proposals_{image}"] = boxes
    boxes = torch.tensor(case.some_boxes(height, width))
    kept = [*boxes]
    pooled = second.box_roi_pool(levels, kept, batch.image_sizes)
    logits, deltas = second.box_predictor(second.box_head(pooled))
    found["box_logits"] = torch.roll(logits, -1, -1).reshape(2, 8, -1)
    found["box_deltas"] = deltas.reshape(2, 8, -1, 4)[:, :, 1:, ORDER]
    pooled = second.mask_roi_pool(levels, kept, batch.image_sizes)
    masks = second.mask_predictor(second.mask_head(pooled))[:, 1:]
    found["mask_logits"] = masks.permute(0, 2, 3, 1).reshape(2, 8, 28, 28, -1)[..., ::3, ::3, :]
    for aligned in (False, True):
        for samples in (0, 2):
            name = f"roi_align_{'aligned' if aligned else 'corners'}_{samples}"
            found[name] = roi_align(levels["3"], kept, 7, 1 / 8, samples, aligned).permute(0, 2, 3, 1)

    detected, _ = second(levels, proposals, batch.image_sizes)
    for image, one in enumerate(detected):
        found[f"found_boxes_{image}"], found[f"found_scores_{image}"] = one["boxes"], one["scores"]
        found[f"found_classes_{image}"], found[f"found_masks_{image}"] = one["labels"] - 1, one["masks"][:8, 0]
        pasted = paste_masks_in_image(one["masks"][:8], one["boxes"][:8], (height, width))
        found[f"pasted_{image}"] = np.packbits(pasted.detach().numpy()[:, 0] > 0.5, axis=-1)

    proposer.train(), second.train()
    boxes, classes, masks = case.labels(height, width)
    targets = [
        {
            "boxes": torch.tensor(boxes[image][there]),
            "labels": torch.tensor(classes[image][there] + 1).long(),
            "masks": torch.tensor(masks[image][there]),
        }
        for image, there in enumerate(classes >= 0)
    ]
    proposer.fg_bg_sampler = Sampler(256, 0.5, lambda image, number: case.draws(number)[image])
    first_numbers = case.draws(len(found["anchors"]))

    def of_proposals(image, number):
        objects = len(targets[image]["boxes"])
        mine = case.draws(2000, seed=3)[image, : number - objects]
        return np.concatenate([mine, first_numbers[image, :objects]])

    second.fg_bg_sampler = Sampler(512, 0.25, of_proposals)
    proposals, first_losses = proposer(batch, levels, targets)
    for image, boxes in enumerate(proposals):
        found[f"training_proposals_{image}"] = boxes
    _, second_losses = second(levels, proposals, batch.image_sizes, targets)
    both = {**first_losses, **second_losses}
    names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
    found["losses"] = torch.stack([both[name] for name in names])
    return {name: np.asarray(getattr(value, "detach", lambda value=value: value)()) for name, value in found.items()}


def main():
    torch.manual_seed(0)
    parts = modules()
    arrays = {}
    for height, width in case.SIZES:
        for name, array in numbers(height, width, *parts).items():
            arrays[f"{height}/{name}"] = array.astype("float32") if array.dtype == "float64" else array
    np.savez_compressed(Path(__file__).with_name("mask_rcnn.npz"), **arrays)


if __name__ == "__main__":
    main()
