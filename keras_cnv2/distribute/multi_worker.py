"""`fit`, `evaluate` and `predict` under tf.distribute.MultiWorkerMirroredStrategy, where Keras 3 alone raises errors.

Keras's trainer fails there in two places (https://github.com/keras-team/keras/issues/20585): to learn the shapes of a
batch it averages the batches of all replicas, and it reduces scalars along an axis that they do not have. Tested with
Keras 3.10 on TensorFlow 2.20 and with Keras 3.15 on TensorFlow 2.21. A test will fail once Keras no longer needs this.
"""

import functools

import keras


def enable_multi_worker() -> None:
    """Makes `fit`, `evaluate` and `predict` of Keras models work under `tf.distribute.MultiWorkerMirroredStrategy`.

    Call it once per process. Nothing changes under any other strategy or without a strategy.

    ```python
    from keras_cnv2 import distribute

    distribute.enable_multi_worker()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # in each worker, with its TF_CONFIG
    with strategy.scope():
        model = keras_cnv2.ConvNeXtV2Atto(weights="imagenet")
        model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(dataset)
    ```

    Raises:
        RuntimeError: If Keras has another backend than TensorFlow, or its version has an unknown trainer.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Several workers need Keras's TensorFlow backend. Received: the backend {keras.backend.backend()}"
        )
    from keras.src.backend.tensorflow import trainer

    reduce = getattr(trainer, "reduce_per_replica", None)
    build = getattr(trainer.TensorFlowTrainer, "_maybe_symbolic_build", None)
    if reduce is None or build is None:
        raise RuntimeError(f"Several workers need another version of Keras. Received: Keras {keras.__version__}")
    if hasattr(reduce, "__wrapped__"):  # already enabled
        return
    trainer.reduce_per_replica = _reducing_numbers(reduce)
    trainer.TensorFlowTrainer._maybe_symbolic_build = _building_from_one_batch(build)


def _reducing_numbers(reduce):
    @functools.wraps(reduce)
    def reduce_per_replica(values, strategy, reduction):
        if reduction == "concat" or not _has_many_workers(strategy):
            return reduce(values, strategy, reduction)
        operation = "SUM" if reduction == "sum" else "MEAN"
        return keras.tree.map_structure(lambda value: strategy.reduce(operation, value, axis=None), values)

    return reduce_per_replica


def _building_from_one_batch(build):
    @functools.wraps(build)
    def maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = self.distribute_strategy
        if iterator is not None and _has_many_workers(strategy):
            *_, batches = next(iter(iterator))
            batch = next(batches)
            data_batch = keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], batch)
            iterator = None
        return build(self, iterator, data_batch)

    return maybe_symbolic_build


def _has_many_workers(strategy):
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.extended._in_multi_worker_mode()
