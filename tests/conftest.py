import keras
import pytest

from keras_cnv2.layers import fused


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that fails once fails again."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def little_is_compiled(monkeypatch):
    """XLA would take most of the time of small models' tests: here it compiles the first stages of 224 x 224 alone."""
    monkeypatch.setattr(fused, "WORTH_IT", 2**17)
