"""Training steps under XLA, whose demands (static shapes, no host calls) are a TPU's as well."""

import keras
import numpy as np
import pytest

import keras_cnv2

SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "stem_stride": 1}
OPTIMIZER = {"layer_decay": 0.9, "global_clipnorm": 1.0, "use_ema": True, "gradient_accumulation_steps": 2}
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 16, 16, 3)).astype("float32")
HIDDEN = RNG.permuted(np.tile([0.0, 0.0, 1.0, 1.0], (16, 1)), axis=1).reshape(16, 2, 2)
LABELS = np.eye(3, dtype="float32")[RNG.integers(0, 3, 16)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX compiles with XLA anyway"),
]


def fcmae(drop_path_rate=0.0):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, drop_path_rate=drop_path_rate)
    return keras_cnv2.FCMAE(backbone, 16, decoder_dim=8, mask_ratio=0.5)


def classifier():
    return keras_cnv2.ConvNeXtV2(**SMALL, classes=3, classifier_activation=None, input_shape=(16, 16, 3))


def trained(model, *data, optimizer, **how):
    """The loss and the weights after two steps."""
    loss = None if isinstance(model, keras_cnv2.FCMAE) else keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras_cnv2.LayerDecayAdamW(0.01, **optimizer), loss=loss, **how)
    losses = model.fit(*data, batch_size=8, shuffle=False, verbose=0).history["loss"]
    return losses, [keras.ops.convert_to_numpy(weight) for weight in model.trainable_variables]


@pytest.mark.parametrize(
    ("build", "data", "optimizer"),
    [(fcmae, ({"images": IMAGES, "hidden": HIDDEN},), {}), (classifier, (IMAGES, LABELS), OPTIMIZER)],
    ids=["fcmae", "classifier"],
)
def test_compiled_steps_give_the_same_numbers(build, data, optimizer):
    results = []
    for how in ({"run_eagerly": True}, {"jit_compile": True}):
        keras.utils.set_random_seed(0)
        results.append(trained(build(), *data, optimizer=optimizer, **how))
    (losses, weights), (compiled_losses, compiled_weights) = results
    np.testing.assert_allclose(compiled_losses, losses, atol=1e-5)
    for one, two in zip(compiled_weights, weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_what_is_drawn_compiles():
    """Masks and drop path; XLA draws other numbers than TensorFlow."""
    import tensorflow as tf

    model = fcmae(drop_path_rate=0.5)
    outputs = tf.function(lambda images: model(images, training=True), jit_compile=True)(IMAGES)
    assert np.isfinite(outputs["prediction"]).all()
    np.testing.assert_array_equal(np.sum(outputs["hidden"], axis=(1, 2)), 2)
