"""A small model with weights that matter, and pictures."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

import keras_cnv2

ARCHITECTURE = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
NAMES = ("ant", "bee", "crane", "dürüm", "elk, or moose")


def with_values(model, std=0.2):
    """Gives every weight a value: fresh GRN and LayerNorm do nothing that could go wrong."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        centre = 1 if weight.path.endswith("norm/gamma") else 0
        weight.assign(rng.normal(centre, std, weight.shape))
    return model


def classifier(**arguments):
    return with_values(keras_cnv2.ConvNeXtV2(**{**ARCHITECTURE, "classes": 5, "class_names": NAMES, **arguments}))


def backbone(**arguments):
    return with_values(keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, **arguments))


_classifiers = {}


def shared_classifier(**arguments):
    """`classifier`, made once for all tests of the process. To be read only."""
    key = repr(arguments)
    if key not in _classifiers:
        _classifiers[key] = classifier(**arguments)
    return _classifiers[key]


@functools.cache
def shared_backbone():
    """`backbone`, made once for all tests of the process. To be read only."""
    return backbone()


def pixels(height=96, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype("uint8")


def encoded(kind="JPEG", seed=0, array=None, **options):
    file = io.BytesIO()
    Image.fromarray(pixels(seed=seed) if array is None else array).save(file, kind, **options)
    return file.getvalue()


def sideways():
    """EXIF data of a picture that is to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


def png_that_claims(height, width):
    """A few bytes whose header promises a picture of that size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
