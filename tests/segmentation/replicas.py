"""Two replicas against one, in a process of its own: devices are split before TensorFlow starts."""

import keras
import numpy as np
import tensorflow as tf

import keras_cnv2
from keras_cnv2.segmentation import ConfusionMatrix, PixelCrossentropy, UPerNet

ARCHITECTURE = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "pyramid_norms": True}


def results(strategy):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (4, 32, 64, 3)).astype("float32")
    y = rng.integers(0, 3, (4, 32, 64)).astype("int32")
    y[:3, :16] = 255  # other numbers of pixels on each replica
    with strategy.scope():
        keras.utils.set_random_seed(0)
        body = keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE)
        body.get_layer("stem_conv").kernel.regularizer = keras.regularizers.L2(0.01)
        model = UPerNet(body, 3, width=4, auxiliary_width=4, dropout=0.0)
        metric = ConfusionMatrix(3)
        model.compile(keras.optimizers.SGD(0.1), PixelCrossentropy(), metrics=[metric], jit_compile=False)
    data = tf.data.Dataset.from_tensors((x, y)).unbatch().batch(4)
    trained = model.fit(data, verbose=0).history
    tested = model.evaluate(data, verbose=0, return_dict=True)
    return {**trained, **{f"test {k}": v for k, v in tested.items()}, **{v.path: v.numpy() for v in model.weights}}, (
        metric.matrix()
    )


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    alone, counts = results(tf.distribute.get_strategy())
    together, counts_too = results(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    assert counts.sum() == counts_too.sum() == 4 * 32 * 64 - 3 * 16 * 64, (counts, counts_too)
    np.testing.assert_allclose(counts, counts_too, atol=20)  # of pixels between two classes
    for name, value in alone.items():
        if "seed" in name:
            continue
        np.testing.assert_allclose(together[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
