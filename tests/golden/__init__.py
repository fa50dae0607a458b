"""Reference numbers from the official PyTorch code and an independent FCMAE reference, and the weights behind them."""

from pathlib import Path

import numpy as np

import keras_cnv2
from tests.golden import rule


def load(name):
    return np.load(Path(__file__).with_name(f"{name}.npz"))


def set_weights(model, seed):
    """Gives the model the pseudo-weights that the reference had."""
    names = {name: array.shape for name, array in keras_cnv2.state_dict(model).items()}
    keras_cnv2.load_checkpoint(model, {name: rule.tensor(int(seed), name, shape) for name, shape in names.items()})


def assert_stages_match(stages, reference, case, tolerance):
    """Compares the feature maps of the four stages with the shapes, statistics and corners of a reference case.

    The tolerance is relative to the spread of a map's values where that is more than 1, as rounding errors are: those
    of float32 are 2e-5 in base's third stage, whose values reach 26, and the reference has its own (seen in float64).
    """
    for number, features in enumerate(stages, start=1):
        expected = {name: reference[f"{case}/stage{number}/{name}"] for name in ("shape", "mean", "std", "corner")}
        np.testing.assert_array_equal(features.shape, expected["shape"])
        received = {
            "mean": features.mean((1, 2))[:, :16],
            "std": features.std((1, 2))[:, :16],
            "corner": features[:, :2, :2, :8],
        }
        spread = max(1, np.std(expected["corner"]))
        for name, value in received.items():
            np.testing.assert_allclose(value, expected[name], atol=tolerance * spread, rtol=tolerance)
