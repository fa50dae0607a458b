import dataclasses
import functools

import pytest

import keras_cnv2
from keras_cnv2.sizes import SIZES


@pytest.fixture
def small_sizes(monkeypatch):
    """The sizes of the examples are as small as a test needs; that they are the paper's is for other tests."""
    for name, dims in {"atto": (4, 6, 8, 10), "tiny": (6, 8, 10, 12)}.items():
        monkeypatch.setitem(SIZES, name, dataclasses.replace(SIZES[name], depths=(1, 1, 1, 1), dims=dims))
        small = functools.partial(keras_cnv2.ConvNeXtV2, (1, 1, 1, 1), dims, name=f"convnextv2_{name}")
        monkeypatch.setattr(keras_cnv2, f"ConvNeXtV2{name.title()}", small)
