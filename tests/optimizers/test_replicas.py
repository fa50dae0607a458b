"""LayerDecayAdamW and LayerDecayMuon on two replicas."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_cnv2 import LayerDecayAdamW, LayerDecayMuon
from keras_cnv2.distribute import replicas
from keras_cnv2.optimizers.loss_scale import LossScaleOptimizer

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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="replicas are TensorFlow's")
class TestOneOfTwo:
    """This process has one of two replicas; what the other one has is made up."""

    @pytest.mark.parametrize("accumulation", [None, 2])
    @pytest.mark.parametrize("kind", [LayerDecayAdamW, LayerDecayMuon])
    def test_the_sum_of_the_gradients_is_clipped(self, kind, accumulation, monkeypatch):
        import tensorflow as tf

        def all_reduce(context, operation, gradients):
            return [gradient + tf.constant([0.0, 4.0]) for gradient in gradients]

        monkeypatch.setattr(type(tf.distribute.get_replica_context()), "all_reduce", all_reduce)
        weight = keras.Variable([1.0, 2.0])
        optimizer = kind(
            0.1, weight_decay=0.0, epsilon=1.0, global_clipnorm=2.5, gradient_accumulation_steps=accumulation
        )
        for _ in range(accumulation or 1):
            optimizer.apply([keras.ops.convert_to_tensor([3.0, 0.0])], [weight])
        clipped = np.array([1.5, 2.0])  # half of (3, 4), whose norm is 5
        expected = np.array([1.0, 2.0]) - 0.1 * clipped / (clipped + 1.0)  # Adam's first step
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("own", "others_are_finite", "is_step"),
        [(1.0, True, True), (1.0, False, False), (np.inf, True, False), (np.nan, False, False)],
    )
    def test_both_leave_out_a_step_that_overflows_on_one(self, own, others_are_finite, is_step, monkeypatch):
        monkeypatch.setattr(replicas, "replica", lambda: (0, 2))
        monkeypatch.setattr(replicas, "all_sum", lambda value: value + int(others_are_finite))
        weight = keras.Variable([1.0, 2.0])
        optimizer = LossScaleOptimizer(LayerDecayAdamW(0.1), initial_scale=8.0)
        optimizer.apply([keras.ops.convert_to_tensor([own, 1.0])], [weight])
        assert (keras.ops.convert_to_numpy(weight) != [1.0, 2.0]).all() == is_step
        assert float(optimizer.dynamic_scale) == (8.0 if is_step else 4.0)
