"""A worker of tests/distribute/test_multi_worker.py: a user's own `fit`, `evaluate` and `predict`.

python -m tests.distribute.distributed_fit RESULT [one|mirrored|multiworker|as_keras_is]...
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import keras_cnv2

SIZE, BATCH = 32, 8
ARCHITECTURE = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "stem_stride": 1, "drop_path_rate": 0.3}


def strategy_of(name):
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    if name == "multiworker":
        from keras_cnv2 import distribute

        distribute.enable_multi_worker()
        distribute.enable_multi_worker()  # twice is as good as once
    return tf.distribute.MultiWorkerMirroredStrategy()


def results(strategy):
    """Losses, metrics, predictions and weights: name -> array."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (18, SIZE, SIZE, 3)).astype("float32")
    labels = rng.integers(0, 3, 18)
    hidden = np.stack([rng.permutation(np.repeat([0.0, 1.0], 8)) for _ in images]).reshape(-1, 4, 4)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        backbone = keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, input_shape=(None, None, 3))
        fcmae = keras_cnv2.FCMAE(backbone, SIZE, decoder_dim=8, mask_ratio=0.5, seed=3)
        classifier = keras_cnv2.ConvNeXtV2(**ARCHITECTURE, classes=3, input_shape=(SIZE, SIZE, 3))
        # Eager steps save the time to trace them; tests/training/distribute/test_distribute.py has graphs.
        fcmae.compile(keras_cnv2.LayerDecayAdamW(0.01), run_eagerly=True)
        classifier.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    given = tf.data.Dataset.from_tensor_slices({"images": images[:16], "hidden": hidden[:16]}).batch(BATCH)
    drawn = tf.data.Dataset.from_tensor_slices(images[:8]).batch(BATCH)
    labelled = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)  # with a small last batch
    quietly = {"verbose": 0}
    found = {
        "losses": fcmae.fit(given, epochs=1, **quietly).history["loss"],
        "losses, masks drawn": fcmae.fit(drawn, epochs=2, **quietly).history["loss"],
        "evaluated": fcmae.evaluate(given, **quietly),
        "classifier": classifier.fit(labelled, **quietly).history["loss"],
        "scores": classifier.evaluate(labelled, **quietly),
        "predictions": classifier.predict(labelled, **quietly),
    }
    weights = {f"{model.name} {v.path}": v for model in (fcmae, classifier) for v in model.trainable_variables}
    return found | {name: keras.ops.convert_to_numpy(v) for name, v in weights.items()}


def main(result, *names):
    if "mirrored" in names:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for name in names:
        np.savez(f"{result}-{name}.npz", **results(strategy_of(name)))
        keras.backend.clear_session()


if __name__ == "__main__":
    main(*sys.argv[1:])
