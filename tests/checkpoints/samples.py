"""The sample files in every published format, and the models they are of."""

from pathlib import Path

import keras
import numpy as np

import keras_cnv2

FILES = Path(__file__).with_name("files")
SEED = 4242  # of the rule of tests/golden that gave all of them the same weights
SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}

CLASSIFIERS = (
    "official_dense.pt",
    "official_dense_legacy.pt",
    "official_training.pt",
    "timm_linear.safetensors",
    "timm_conv_mlp.safetensors",
    "transformers.safetensors",
)
ENCODERS = ("official_fcmae_dense.pt", "timm_fcmae.safetensors")
FCMAES = ("official_fcmae_sparse.pt",)


def classifier(**kwargs):
    return keras_cnv2.ConvNeXtV2(**{**SMALL, "classes": 10, "classifier_activation": None, **kwargs})


def backbone(**kwargs):
    return keras_cnv2.ConvNeXtV2Backbone(**SMALL, **kwargs)


def fcmae():
    return keras_cnv2.FCMAE(backbone(), image_size=64, decoder_dim=48)


def snapshot(model):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def unchanged(model, before):
    return all((a == b).all() for a, b in zip(before, snapshot(model), strict=True))
