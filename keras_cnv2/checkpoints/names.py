"""What each weight is called elsewhere, one ordered table a dialect: the Keras path, the other name, the layout."""

import re
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """How a Keras array is laid out in PyTorch: its axes in another order, between axes of length one."""

    axes: tuple[int, ...]
    ones_before: int = 0
    ones_after: int = 0

    def torch_shape(self, shape):
        return (1,) * self.ones_before + tuple(shape[axis] for axis in self.axes) + (1,) * self.ones_after

    def to_torch(self, array):
        return array.transpose(self.axes).reshape(self.torch_shape(array.shape))

    def to_keras(self, array, shape):
        return array.reshape([shape[axis] for axis in self.axes]).transpose(np.argsort(self.axes))


VECTOR = Layout((0,))
MATRIX = Layout((1, 0))  # (in, out) -> (out, in)
POINTWISE = Layout((1, 0), ones_after=2)  # a dense layer here, a 1x1 convolution there
CONV = Layout((3, 2, 0, 1))  # (h, w, in, out) -> (out, in, h, w)
DEPTHWISE = Layout((2, 3, 0, 1))  # (h, w, channels, 1) -> (channels, 1, h, w)
CHANNELS_LAST = Layout((0,), ones_before=3)  # (C,) -> (1, 1, 1, C)
CHANNELS_FIRST = Layout((0,), ones_before=1, ones_after=2)  # (C,) -> (1, C, 1, 1)


def _layer(ours, theirs, weights):
    return [(f"{ours}/{keras_name}", f"{theirs}.{name}", layout) for keras_name, name, layout in weights]


def _affine(layout):
    return [("kernel", "weight", layout), ("bias", "bias", VECTOR)]


def _block(ours, theirs):
    return [
        *_layer(f"{ours}/dwconv", f"{theirs}.dwconv", _affine(DEPTHWISE)),
        *_layer(f"{ours}/norm", f"{theirs}.norm", NORM),
        *_layer(f"{ours}/pwconv1", f"{theirs}.pwconv1", _affine(MATRIX)),
        *_layer(f"{ours}/grn", f"{theirs}.grn", GRN),
        *_layer(f"{ours}/pwconv2", f"{theirs}.pwconv2", _affine(MATRIX)),
    ]


NORM = [("gamma", "weight", VECTOR), ("beta", "bias", VECTOR)]
GRN = [("gamma", "gamma", CHANNELS_LAST), ("beta", "beta", CHANNELS_LAST)]

# facebookresearch/ConvNeXt-V2: the dense models, and FCMAE's decoder. "{0}" and "{1}" are stage and block numbers.
OFFICIAL = [
    *_layer("stem_conv", "downsample_layers.0.0", _affine(CONV)),
    *_layer("stem_norm", "downsample_layers.0.1", NORM),
    *_layer("downsample_{0}_norm", "downsample_layers.{0}.0", NORM),
    *_layer("downsample_{0}_conv", "downsample_layers.{0}.1", _affine(CONV)),
    *_block("stages_{0}_{1}", "stages.{0}.{1}"),
    *_layer("norm", "norm", NORM),
    *_layer("head", "head", _affine(MATRIX)),
    *_layer("proj", "proj", _affine(POINTWISE)),
    ("mask_token/token", "mask_token", CHANNELS_FIRST),
    *_block("decoder_{0}", "decoder.{0}"),
    *_layer("pred", "pred", _affine(POINTWISE)),
]

# The parts a checkpoint may have or lack as a whole. All else is the encoder.
PARTS = {
    "norm": re.compile(r"norm\."),
    "head": re.compile(r"head\."),
    "decoder": re.compile(r"proj\.|mask_token$|decoder\.|pred\."),
}


def part_of(name):
    """The part of the model that the official `name` belongs to: "encoder" or a key of `PARTS`."""
    return next((part for part, pattern in PARTS.items() if pattern.match(name)), "encoder")


def official_name(path):
    """The official name and the layout of the weight at a Keras path; `None` if it has none."""
    for ours, theirs, layout in OFFICIAL:
        match = re.fullmatch(re.sub(r"\\{\d\\}", r"(\\d+)", re.escape(ours)), path)
        if match:
            return theirs.format(*match.groups()), layout
    return None


def path_in_model(key):
    """The Keras path of the weight that a Keras file calls "layer/i", counting; `None` if it is none of ours."""
    layer, _, index = key.rpartition("/")
    for weights in (("kernel", "bias"), ("gamma", "beta"), ("token",)):
        paths = {str(i): f"{layer}/{weight}" for i, weight in enumerate(weights)}
        if official_name(paths["0"]):
            return paths.get(index)
    return None
