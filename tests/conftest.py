import signal

import keras
import pytest

from keras_cnv2.kernels import fused

# A shell's jobs in the background ignore Ctrl-C, and all processes that they start: here it is to end them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Take minutes in the slow set. They come first, so that of two processes none waits for them at the end.
LONGEST = ("test_quickstart.py", "test_detect.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that fails once fails again."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def little_is_compiled(monkeypatch):
    """XLA would take most of the time of small models' tests: here it compiles the first stages of 224 x 224 alone."""
    monkeypatch.setattr(fused, "WORTH_IT", 2**17)
