import gc
import random
import signal

import keras
import numpy as np
import pytest

from keras_cnv2.checkpoints import hdf5_table, read_hdf5
from keras_cnv2.kernels import fused

# A shell's jobs in the background ignore Ctrl-C, and all processes that they start: here it is to end them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What is imported stays: the collector of garbage need not look through it again and again.
gc.freeze()

# Take minutes in the slow set. They come first, so that of two processes none waits for them at the end.
LONGEST = ("test_quickstart.py", "test_dense_runs.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True, scope="module")
def same_global_seeds():
    """For each test it would take a tenth of a second: TensorFlow forgets its functions with it."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that fails once fails again. Layers draw their seeds from Python's numbers."""
    random.seed(0)
    np.random.seed(0)


if keras.backend.backend() == "jax":
    from tests import initial_values

    initial_values.draw_with_numpy()


@pytest.fixture(autouse=True)
def graphs_as_written(request):
    """Optimizing a graph takes longer than a test runs it: slow tests alone have TensorFlow's optimized ones."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        is_quick = request.node.get_closest_marker("slow") is None
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": is_quick})


@pytest.fixture(autouse=True)
def garbage_is_left(monkeypatch):
    """Keras collects it for each variable that `quantize` and LoRA replace: a second each in a process of tests."""
    monkeypatch.setattr(gc, "collect", lambda generation=2: 0)


@pytest.fixture(autouse=True)
def hdf5_is_looked_at_here(request, monkeypatch):
    """What tests write needs no process of its own, whose start takes longer than they: test_read_hdf5.py has that."""
    if request.path.name != "test_read_hdf5.py" and request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(read_hdf5, "answer_in_process", hdf5_table.answer)


@pytest.fixture(autouse=True)
def little_is_compiled(request, monkeypatch):
    """XLA would take most of the time of slow tests that train small models: there it compiles the first stages of
    224 x 224 alone. Elsewhere what trains takes the way that users take."""
    if request.node.get_closest_marker("slow"):
        monkeypatch.setattr(fused, "WORTH_IT", 2**17)


@pytest.fixture
def eagerly():
    """Nothing is traced, which takes longer than the few steps of a test."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
