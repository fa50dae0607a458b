"""One step of training on two replicas and on one, in a process of its own: `python -m tests.detection.replicas_step`.

Devices are divided before TensorFlow starts, so a test cannot do it.
"""

import keras
import numpy as np
import tensorflow as tf

from tests.detection.samples import images, labels, noisy, tiny

# All boxes are in the first replica's half but one: the number of anchors with a box differs.
LABELS = labels(
    [(1, (5, 5, 40, 40)), (0, (10, 20, 30, 60))], [(2, (0, 0, 9, 9)), (1, (20, 3, 60, 60))], [], [(0, (8, 8, 24, 24))]
)


def step(strategy):
    """Losses and weights after one step of plain gradient descent, then losses of an evaluation."""
    with strategy.scope():
        model = noisy(tiny())
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices((images(4), LABELS)).batch(4)
    trained = model.fit(data, epochs=1, verbose=0).history
    evaluated = model.evaluate(data, return_dict=True, verbose=0)
    return trained, evaluated, model.get_weights()


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = step(tf.distribute.get_strategy())
    two = step(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    for name in ("loss", "box_loss", "classification_loss"):
        np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(two[1][name], one[1][name], rtol=1e-4, err_msg=f"evaluation, {name}")
    for received, expected in zip(two[2], one[2], strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    print("equal after a step:", one[0])


if __name__ == "__main__":
    main()
