import keras
import pytest


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that fails once fails again."""
    keras.utils.set_random_seed(0)
