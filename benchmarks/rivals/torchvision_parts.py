"""Parts of torchvision's Mask R-CNN on PyTorch, eager or compiled, with one thread per core.

Its compiled operators for the CPU are not needed here: suppression and RoIAlign are no parts of this comparison.
"""

import os
from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from benchmarks.detection_task import CLASSES, UNITS, WIDTH, weights


def part(task, name, trained=False, mode="default"):
    """Returns a function like that of `benchmarks.ours_detection.part`, compiled in a mode of torch.compile."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    made, layers, features, finish = {"pyramid": _pyramid, "box_head": _box_head, "mask_head": _mask_head}[name](task)
    for layer_name, layer in layers.items():
        _set_weights(layer, layer_name)
    layout = torch.channels_last
    made = made.to(memory_format=layout)
    features = [torch.from_numpy(x.transpose(0, 3, 1, 2)).contiguous(memory_format=layout) for x in features]
    forward = torch.compile(made, mode=mode, dynamic=False) if mode else made
    if not trained:

        @torch.inference_mode()
        def run():
            return finish(forward(*features)).numpy()

        return run

    parameters = [parameter for layer in layers.values() for parameter in (layer.weight, layer.bias)]
    given = [*parameters, *(x.requires_grad_() for x in features)]

    def gradients():
        loss = finish(forward(*features)).square().mean()
        return torch.stack([x.abs().sum() for x in torch.autograd.grad(loss, given)]).numpy()

    return gradients


def _set_weights(layer, name):
    """Sets the weights that Keras's layer of this name has, in PyTorch's layout."""
    shape = tuple(layer.weight.shape)
    if name == "dense_1":  # of features that are flattened with the channels first
        kernel, bias = weights(name, (shape[1], shape[0]))
        kernel = kernel.reshape(7, 7, WIDTH, UNITS).transpose(3, 2, 0, 1).reshape(shape)
    elif isinstance(layer, nn.ConvTranspose2d) or len(shape) == 4:
        kernel, bias = weights(name, (*shape[2:], shape[1], shape[0]))
        kernel = kernel.transpose(3, 2, 0, 1)
    else:
        kernel, bias = weights(name, shape[::-1])
        kernel = kernel.T
    layer.weight.data, layer.bias.data = torch.tensor(kernel.copy()), torch.tensor(bias)


class _PyramidAndHead(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.pyramid = FeaturePyramidNetwork([*dims], WIDTH, LastLevelMaxPool())
        self.head = RPNHead(WIDTH, 3)

    def forward(self, *features):
        levels = self.pyramid(OrderedDict((str(number), x) for number, x in enumerate(features)))
        return self.head([*levels.values()])


def _pyramid(task):
    made = _PyramidAndHead(task.dims)
    layers = {f"lateral_{n}": block[0] for n, block in enumerate(made.pyramid.inner_blocks)}
    layers |= {f"output_{n}": block[0] for n, block in enumerate(made.pyramid.layer_blocks)}
    head = made.head
    layers |= {"conv": head.conv[0][0], "objectness": head.cls_logits, "deltas": head.bbox_pred}

    def finish(outputs):
        rows = [x.permute(0, 2, 3, 1).reshape(task.batch, -1) for pair in zip(*outputs) for x in pair]
        return torch.cat(rows, 1)

    return made, layers, task.features("pyramid"), finish


def _box_head(task):
    made = nn.Sequential(TwoMLPHead(WIDTH * 49, UNITS), FastRCNNPredictor(UNITS, CLASSES + 1))
    made[1].bbox_pred = nn.Linear(UNITS, 4 * CLASSES)  # torchvision's has deltas of the background, too
    layers = {"dense_1": made[0].fc6, "dense_2": made[0].fc7}
    layers |= {"logits": made[1].cls_score, "box_deltas": made[1].bbox_pred}
    return made, layers, task.features("box_head"), lambda outputs: torch.cat(outputs, 1)


def _mask_head(task):
    made = nn.Sequential(MaskRCNNHeads(WIDTH, [WIDTH] * 4, 1), MaskRCNNPredictor(WIDTH, WIDTH, CLASSES))
    layers = {f"mask_conv_{n}": block[0] for n, block in enumerate(made[0])}
    layers |= {"double": made[1].conv5_mask, "mask_logits": made[1].mask_fcn_logits}
    return made, layers, task.features("mask_head"), lambda outputs: outputs.permute(0, 2, 3, 1)
