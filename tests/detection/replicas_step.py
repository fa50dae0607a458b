"""One step of training on two replicas and on one, in a process of its own: `python -m tests.detection.replicas_step`.

Devices are divided before TensorFlow starts, so a test cannot do it.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_cnv2.detection import Variant
from tests.detection.samples import images, labels, noisy, tiny, tiny_mask_rcnn

# All boxes are in the first replica's half but one: the number of anchors with a box differs.
LABELS = labels(
    [(1, (5, 5, 40, 40)), (0, (10, 20, 30, 60))], [(2, (0, 0, 9, 9)), (1, (20, 3, 60, 60))], [], [(0, (8, 8, 24, 24))]
)

WITH_MASKS = {**LABELS, "masks": np.ones((*LABELS["classes"].shape, 64, 64), "uint8")}
FEW = Variant(training_candidates=40, candidates=20, training_proposals=20, proposals=20, box_samples=16)


def step(strategy, new_model, labels):
    """Losses and weights after one step of plain gradient descent, then losses of an evaluation."""
    with strategy.scope():
        model = new_model()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices((images(4), labels)).batch(4)
    trained = model.fit(data, epochs=1, verbose=0).history
    evaluated = model.evaluate(data, return_dict=True, verbose=0)
    return trained, evaluated, model.get_weights()


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for case in (
        (lambda: noisy(tiny()), LABELS),
        (lambda: tiny_mask_rcnn(seed=1, variant=FEW), WITH_MASKS),  # with the same draws of samples
    ):
        compare(step(tf.distribute.get_strategy(), *case), step(mirrored, *case))


def compare(one, two):
    assert one[1].keys() >= {"loss", "box_loss"}
    for name in one[1]:
        np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(two[1][name], one[1][name], rtol=1e-4, err_msg=f"evaluation, {name}")
    for received, expected in zip(two[2], one[2], strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    print("equal after a step:", one[0])


if __name__ == "__main__":
    main()
