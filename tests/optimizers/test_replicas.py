"""LayerDecayAdamW and LayerDecayMuon on two replicas."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPLICAS = """
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras_cnv2

Optimizer = keras_cnv2.LayerDecayAdamW
rng = np.random.default_rng(0)
images, labels = rng.standard_normal((32, 8, 8, 4)).astype("float32"), rng.integers(0, 3, 32)

def trained(strategy, dtype, **arguments):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(dtype)
        blocks = [keras_cnv2.ConvNeXtV2Block(4, name=f"stages_3_{i}") for i in range(2)]
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax", dtype="float32")]
        model = keras.Sequential([keras.Input((8, 8, 4)), *blocks, *head])
        schedule = keras_cnv2.WarmupCosine(0.01, steps=4, warmup_steps=1)
        optimizer = Optimizer(schedule, weight_decay=0.3, layer_decay=0.7, **arguments)
        model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=8, shuffle=False, epochs=1, verbose=0)
    return model.get_weights()

def compare(tolerance, dtype="float32", **arguments):
    one = trained(tf.distribute.get_strategy(), dtype, **arguments)
    two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), dtype, **arguments)
    assert tf.config.list_logical_devices("CPU")[1:]
    for a, b in zip(two, one):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)

"""


OVERFLOW = """
from keras_cnv2.optimizers.loss_scale import LossScaleOptimizer

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    weight = keras.Variable([1.0, 2.0])
    optimizer = LossScaleOptimizer(keras_cnv2.LayerDecayAdamW(0.1))
    optimizer.build([weight])

@tf.function
def step(values):
    def apply():
        own = tf.gather(values, tf.distribute.get_replica_context().replica_id_in_sync_group)
        optimizer.apply_gradients([(tf.stack([own, 1.0]), weight)])
    strategy.run(apply)

def state():
    return [np.array(keras.ops.convert_to_numpy(v)) for v in (weight, optimizer.dynamic_scale)]

for values in ([1.0, np.inf], [np.nan, 1.0], [1.0, -2.0]):
    before, scale = state()
    step(tf.constant(values, tf.float32))
    after, scale_after = state()
    finite = np.isfinite(values).all()
    assert np.isfinite(after).all(), after
    assert (after != before).all() == finite, (before, after)
    assert scale_after == scale * (1 if finite else 0.5)
"""


EQUAL = """
compare(
    1e-6,
    global_clipnorm=0.1,
    use_ema=True,
    ema_momentum=0.5,
    ema_overwrite_frequency=1,
    gradient_accumulation_steps=2,
)
"""
EQUAL_MUON = "Optimizer = keras_cnv2.LayerDecayMuon" + EQUAL
EQUAL_HALF = """
compare(1e-3, "mixed_float16", gradient_accumulation_steps=2)
"""


# A process for each: TensorFlow numbers the sums of several MirroredStrategies in one process alike, and aborts now and
# then as their shapes differ.
@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [OVERFLOW, EQUAL, EQUAL_MUON, EQUAL_HALF], ids=["overflow", "equal", "equal_muon", "equal_half"]
)
def test_two_replicas_equal_one_device_and_overflow_together(program):
    process = subprocess.run([sys.executable, "-c", REPLICAS + program], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr[-3000:]
