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
