import tracemalloc

import keras
import numpy as np
import pytest

from tests.training.analysis.small import classifier
from training.analysis import measures


class TestCosineDistance:
    def test_by_hand(self):
        """By the paper's formula, pair by pair."""
        x = np.random.default_rng(0).normal(0.3, 1, (2, 3, 4, 5)).astype("float32")
        x[1, ..., 2] = 0
        for image, distance in zip(x, measures.cosine_distance(x)):
            channels = image.reshape(-1, 5).T
            total = 0
            for one in channels:
                for two in channels:
                    lengths = np.linalg.norm(one) * np.linalg.norm(two)
                    total += (1 - (one @ two / lengths if lengths else 0)) / 2
            assert distance == pytest.approx(total / 25, abs=1e-6)

    def test_known_cases(self):
        same = np.ones((1, 2, 2, 8)) * np.arange(1, 9)
        np.testing.assert_allclose(measures.cosine_distance(same), 0, atol=1e-12)
        opposite = np.ones((1, 2, 2, 8)) * np.repeat([1, -1], 4)
        np.testing.assert_allclose(measures.cosine_distance(opposite), 0.5)
        orthogonal = np.eye(4).reshape(1, 2, 2, 4)
        np.testing.assert_allclose(measures.cosine_distance(orthogonal), 0.5 * (1 - 1 / 4))


class TestSelectivity:
    def test_known_cases(self):
        """Channels: for class 0 alone, for all alike, twice as much for class 2, never, only below zero."""
        activity = np.array([[3.0, 1, 1, 0, -1], [0, 1, 1, 0, -2], [0, 1, 2, 0, -3]])
        labels = np.array([0, 1, 2, 0, 1, 2])
        outputs = np.broadcast_to(activity[labels][:, None, None], (6, 2, 3, 5))
        counted = measures.Selectivity(4)  # one of them without images
        for part in (slice(0, 4), slice(4, 6)):
            counted.update(outputs[part], labels[part])
        np.testing.assert_allclose(counted.result(), [1, 0, 1 / 3, 0, 0])

    def test_memory_of_many_classes(self):
        """It grows with their number, not with its square."""
        counted = measures.Selectivity(5000)
        tracemalloc.start()
        counted.update(np.ones((2, 1, 1, 3)), np.array([1, 4999]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        np.testing.assert_array_equal(np.flatnonzero(counted.images), [1, 4999])

    def test_one_class_is_too_few(self):
        counted = measures.Selectivity(2)
        counted.update(np.ones((2, 1, 1, 3)), np.array([1, 1]))
        with pytest.raises(ValueError, match="two classes or more. Received: 1"):
            counted.result()


def test_grad_cam_has_the_gradient_of_the_logit():
    import tensorflow as tf

    model = classifier(classifier_activation=None)
    tail = keras.Sequential([model.get_layer(name) for name in ("pool", "norm", "head")])
    features = np.random.default_rng(0).normal(0, 1, (3, 2, 5, 10)).astype("float32")
    labels = np.array([2, 0, 1])
    x = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.gather(tail(x), labels, batch_dims=1)
    gradient = tape.gradient(logits, x).numpy()
    expected = np.maximum((features * gradient.mean((1, 2), keepdims=True)).sum(-1), 0)
    expected /= expected.max((1, 2), keepdims=True)
    found = measures.grad_cam(features, model.get_layer("norm"), model.get_layer("head"), labels)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.max((1, 2)) == pytest.approx(1)
