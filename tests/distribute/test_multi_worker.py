"""Keras's own `fit`, `evaluate` and `predict` under strategies, and what `keras_cnv2.distribute` adds to them."""

import keras
import numpy as np
import pytest

from tests.workers import Workers

PROGRAM = ["-m", "tests.distribute.distributed_fit"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The results of one device, and where those of two on one machine are."""
    folder = tmp_path_factory.mktemp("fit")
    with Workers(folder, [[*PROGRAM, folder / "alone", "one", "mirrored"]]) as workers:
        workers.succeed(150)
    return np.load(folder / "alone-one.npz"), folder / "alone-mirrored.npz"


def assert_same(one, path):
    two = np.load(path)
    assert one.files == two.files
    for name in one.files:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_devices_give_the_numbers_of_one(expected):
    assert_same(*expected)


@pytest.mark.slow
def test_two_workers_give_the_numbers_of_one_device(expected, tmp_path):
    with Workers(tmp_path, [[*PROGRAM, tmp_path / str(number), "multiworker"] for number in range(2)]) as workers:
        workers.succeed(150)
    for number in range(2):
        assert_same(expected[0], tmp_path / f"{number}-multiworker.npz")


@pytest.mark.slow
@pytest.mark.release
def test_keras_still_needs_it(tmp_path):
    """If this fails, Keras is mended: remove distribute/multi_worker.py, or its call for this version of Keras."""
    with Workers(tmp_path, [[*PROGRAM, tmp_path / str(number), "as_keras_is"] for number in range(2)]) as workers:
        assert workers.wait(150) == [1, 1]
        assert "fcmae.fit(" in workers.output(0)


def test_nothing_changes_under_other_strategies():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("there are strategies on TensorFlow alone")
    import tensorflow as tf
    from keras.src.backend.tensorflow import trainer

    from keras_cnv2 import distribute

    own = trainer.reduce_per_replica, trainer.TensorFlowTrainer._maybe_symbolic_build
    try:
        distribute.enable_multi_worker()
        mended = trainer.reduce_per_replica, trainer.TensorFlowTrainer._maybe_symbolic_build
        assert [function.__wrapped__ for function in mended] == [*own]
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant([1.0, 3.0][int(context.replica_id_in_sync_group)])
        )
        for reduction in ("mean", "sum", "first", "auto"):
            assert trainer.reduce_per_replica(values, strategy, reduction) == own[0](values, strategy, reduction)
    finally:
        trainer.reduce_per_replica, trainer.TensorFlowTrainer._maybe_symbolic_build = own


@pytest.mark.backends
def test_unknown_trainer_is_refused(monkeypatch):
    from keras_cnv2 import distribute

    if keras.backend.backend() == "tensorflow":
        monkeypatch.delattr("keras.src.backend.tensorflow.trainer.reduce_per_replica")
        message = f"another version of Keras. Received: Keras {keras.__version__}"
    else:
        message = f"TensorFlow backend. Received: the backend {keras.backend.backend()}"
    with pytest.raises(RuntimeError, match=message):
        distribute.enable_multi_worker()
