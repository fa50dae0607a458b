"""Contestants of keras_cnv2 on JAX, for accelerators. Functions are compiled, and states stay on the device.

Their processes have KERAS_BACKEND=jax and do not load TensorFlow.
"""

import sys

import jax
import jax.numpy as jnp
import keras
import numpy as np

import keras_cnv2
from benchmarks.adamw import EPSILON, LEARNING_RATE, WEIGHT_DECAY
from benchmarks.classifier import classifier


def check_process():
    """Raises an `AssertionError` unless the backend is JAX and TensorFlow is not loaded."""
    assert keras.backend.backend() == "jax", keras.backend.backend()
    assert "tensorflow" not in sys.modules


def with_peak(run):
    """Adds an attribute `peak` to `run`, which returns the device's peak memory, if the device reports it."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        run.peak = lambda: jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return run


def inference(task, dtype="bfloat16"):
    """Returns a function that computes logits in `dtype`, except for the head's norm and GRN's statistics."""
    keras.config.set_dtype_policy(dtype)
    made = classifier(task)
    check_process()
    weights = [v.value for v in made.trainable_variables], [v.value for v in made.non_trainable_variables]
    forward = jax.jit(lambda weights, x: made.stateless_call(*weights, x)[0].astype("float32"))
    x = jnp.asarray(task.images(), dtype)
    return with_peak(lambda: np.asarray(forward(weights, x)))


def _step(made, optimizer, loss_of, *inputs):
    """Returns a function without arguments; each call makes one optimizer step and returns the loss.

    Args:
        made: The model.
        optimizer: Keras optimizer.
        loss_of: Function of the model's outputs and the inputs.
        *inputs: Arrays; the first is the model's input.
    """
    check_process()
    optimizer.build(made.trainable_variables)

    def loss(trainable, other, inputs):
        outputs, other = made.stateless_call(trainable, other, inputs[0], training=True)
        return loss_of(outputs, *inputs), other

    def step(state, inputs):
        trainable, other, slots = state
        (value, other), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, other, inputs)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return value, (trainable, other, slots)

    step = jax.jit(step, donate_argnums=0)
    variables = made.trainable_variables, made.non_trainable_variables, optimizer.variables
    # Copies, because a step donates the memory of its input state.
    state = [[jnp.array(v.value) for v in group] for group in variables]
    inputs = jax.tree.map(jnp.asarray, inputs)

    def run():
        nonlocal state
        value, state = step(state, inputs)
        return np.asarray(value)

    return with_peak(run)


def training(task, dtype="mixed_bfloat16"):
    """Returns a function that makes a step of fine-tuning."""
    keras.config.set_dtype_policy(dtype)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON)

    def loss_of(logits, images, labels):
        return jnp.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))

    return _step(classifier(task), optimizer, loss_of, task.images(), task.labels())


def fcmae(task, encoder, dtype="mixed_bfloat16"):
    """Returns a function that makes a step of pre-training with either encoder, both with the same masks."""
    keras.config.set_dtype_policy(dtype)
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=task.depths, dims=task.dims)
    made = keras_cnv2.FCMAE(backbone, task.image_size, encoder=encoder)
    rng = np.random.default_rng(3)
    for variable in made.trainable_variables:  # the small initial values would hide differences
        kept = 1 if variable.path.endswith(("gamma", "norm/scale")) else 0
        width = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 100
        variable.assign(kept + rng.standard_normal(variable.shape) / np.sqrt(width))
    patches = made.grid[0] * made.grid[1]
    order = rng.permuted(np.tile(np.arange(patches), (task.batch, 1)), axis=1)
    hidden = (order >= made.visible).reshape(task.batch, *made.grid).astype("float32")
    images = np.clip(128 + 60 * task.images(), 0, 255)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, beta_2=0.95, epsilon=EPSILON)

    def loss_of(outputs, inputs):
        return made.reconstruction_loss(inputs["images"], outputs)

    return _step(made, optimizer, loss_of, {"images": images, "hidden": hidden})


def products(task, width, repeats=20):
    """Returns a function that computes `repeats` products of (width, width) bfloat16 matrices, one after the other."""
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.standard_normal((width, width)) / np.sqrt(width), "bfloat16") for _ in range(2))

    @jax.jit
    def chain(x, w):
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ w, x)[:8, :8].astype("float32")

    check_process()
    once = np.asarray(jax.jit(jnp.matmul)(x, w).astype("float32"))[:8]
    np.testing.assert_allclose(once, np.asarray(x[:8], "float32") @ np.asarray(w, "float32"), atol=0.02)
    return lambda: np.asarray(chain(x, w))
