"""What replicas of tf.distribute draw and lose, each by itself; test_multi_worker.py has them all."""

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.distribute import replicas
from keras_cnv2.fcmae import masking


def on(monkeypatch, number, count):
    monkeypatch.setattr(replicas, "replica", lambda: (number, count))


@pytest.mark.backends
def test_alone_there_is_one():
    assert replicas.replica() == (0, 1)
    assert replicas.all_sum(3) == 3


@pytest.mark.backends
def test_replicas_draw_the_numbers_of_one_device(monkeypatch):
    def drawn(samples):
        return keras.ops.convert_to_numpy(replicas.uniform((samples, 3), keras.random.SeedGenerator(7)))

    whole, parts = drawn(8), []
    for number in range(4):
        on(monkeypatch, number, 4)
        parts.append(drawn(2))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len({part.tobytes() for part in parts}) == 4


def test_masks_differ_between_replicas(monkeypatch):
    masks = []
    for number in range(2):
        on(monkeypatch, number, 2)
        seed = keras.random.SeedGenerator(0)
        masks.append(keras.ops.convert_to_numpy(masking.random_hidden(4, 7, 7, 20, seed)))
    assert (masks[0] != masks[1]).any((1, 2)).all()
    assert (np.sum(1 - np.array(masks), axis=(2, 3)) == 20).all()


def test_drop_path_differs_between_replicas(monkeypatch):
    kept = []
    for number in range(2):
        on(monkeypatch, number, 2)
        layer = keras_cnv2.DropPath(0.5, seed=0)
        kept.append(keras.ops.convert_to_numpy(layer(np.ones((64, 1, 1, 1), "float32"), training=True)))
    assert (kept[0] != kept[1]).any()


def test_losses_of_replicas_add_up_to_that_of_the_batch(monkeypatch):
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), stem_stride=1)
    fcmae = keras_cnv2.FCMAE(backbone, 16, decoder_dim=8)
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")
    hidden = np.tile([[0.0, 1.0], [1.0, 1.0]], (4, 1, 1))
    whole = keras.ops.convert_to_numpy(fcmae.compute_loss(images, y_pred=fcmae(images, hidden)))
    parts = []
    for number in range(2):
        on(monkeypatch, number, 2)
        half = slice(2 * number, 2 * number + 2)
        loss = fcmae.compute_loss(images[half], y_pred=fcmae(images[half], hidden[half]))
        parts.append(keras.ops.convert_to_numpy(loss))
    assert sum(parts) == pytest.approx(whole, rel=1e-5)
