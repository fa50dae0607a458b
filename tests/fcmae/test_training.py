import keras
import numpy as np
import pytest

import keras_cnv2
from tests.fcmae.small import EAGERLY, ENCODERS, SMALL, TENSORFLOW, images, numpy, scramble, shared, small


def loss_of(model, *data, **weights):
    """The loss of one batch, where older releases of Keras put out the mean since the metrics were reset."""
    model.reset_metrics()
    return model.test_on_batch(*data, **weights)


class TestTraining:
    @pytest.mark.backends
    @pytest.mark.parametrize("encoder", [pytest.param("visible", marks=pytest.mark.slow), "dense"])
    def test_fit_lowers_the_loss(self, encoder):
        model = small(encoder=encoder, seed=0)
        model.compile(keras.optimizers.Adam(1e-2))
        ramps = np.broadcast_to(np.linspace(0, 1, 32)[:, None, None], (8, 32, 32, 3)) * images(8, 1, 1)
        history = model.fit(ramps, epochs=20, batch_size=4, verbose=0).history["loss"]
        assert min(history) < 0.5 * history[0]  # 0.42 is usual

    def test_every_variable_is_official_and_gets_a_gradient(self):
        model = scramble(small())
        names = keras_cnv2.state_dict(model)
        assert len(names) == len(model.trainable_variables) == len(model.weights)
        assert not any(name.removeprefix("encoder.").startswith(("norm.", "head.")) for name in names)
        before = model.get_weights()
        model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
        model.train_on_batch(images())
        still = [v.path for v, a, b in zip(model.weights, before, model.get_weights()) if (a == b).all()]
        assert still == []

    @pytest.mark.backends
    def test_dictionary_with_masks(self):
        model = small(16, mask_ratio=0.5)
        hidden = np.tile([[[0, 1], [1, 0]]], (8, 1, 1)).astype("float32")
        model.compile("sgd")
        x = {"images": images(8, 16, 16), "hidden": hidden}
        assert np.isfinite(model.fit(x, batch_size=4, verbose=0).history["loss"]).all()
        np.testing.assert_array_equal(model.predict(x, verbose=0)["hidden"], hidden)

    @pytest.mark.backends
    @pytest.mark.parametrize("encoder", ["visible", pytest.param("dense", marks=pytest.mark.slow)])
    def test_labels_are_ignored_and_weights_are_not(self, encoder):
        model, x, y = scramble(small(encoder=encoder)), images(), np.arange(4)
        weights = np.array([0, 1, 2, 0.5], "float32")
        hidden = numpy(model(x)["hidden"])
        both = {"images": x, "hidden": hidden}
        # Each image has as many hidden patches as the others, so the loss is the mean of theirs.
        alone = [
            numpy(model.reconstruction_loss(x[i : i + 1], model(x[i : i + 1], hidden=hidden[i : i + 1])))
            for i in range(4)
        ]
        model.compile("sgd", **EAGERLY)
        assert loss_of(model, both, y) == loss_of(model, both)
        np.testing.assert_allclose(loss_of(model, both), np.mean(alone), rtol=1e-5)
        for shape in ((4,), (4, 1)):
            weighted = loss_of(model, both, y, sample_weight=weights.reshape(shape))
            np.testing.assert_allclose(weighted, np.mean(weights * alone), rtol=1e-5)
        history = model.fit(both, y, sample_weight=weights, batch_size=4, verbose=0).history["loss"]
        np.testing.assert_allclose(history, np.mean(weights * alone), rtol=1e-5)

    def test_regularizers_count(self):
        model = scramble(small())
        x = {"images": images(), "hidden": numpy(model(images())["hidden"])}
        model.compile("sgd", **EAGERLY)
        plain = loss_of(model, x)
        model.proj.kernel.regularizer = model.pred.kernel.regularizer = keras.regularizers.L2(0.5)
        model.compile("sgd", **EAGERLY)
        expected = plain + sum(0.5 * np.sum(np.square(numpy(layer.kernel))) for layer in (model.proj, model.pred))
        np.testing.assert_allclose(loss_of(model, x), expected, rtol=1e-5)
        model.reset_metrics()
        np.testing.assert_allclose(model.train_on_batch(x), expected, rtol=1e-5)

    @pytest.mark.skipif(not TENSORFLOW, reason="a dataset of TensorFlow")
    def test_dataset_that_does_not_tell_its_shapes(self):
        import tensorflow as tf

        def batches():
            yield images(3, 16, 16)
            yield images(2, 16, 16)

        dataset = tf.data.Dataset.from_generator(
            batches, output_signature=tf.TensorSpec((None, None, None, None), "float32")
        )
        model = small(16, mask_ratio=0.5)
        model.compile("sgd")
        assert np.isfinite(model.fit(dataset, shuffle=False, verbose=0).history["loss"]).all()

    @pytest.mark.backends
    def test_evaluate_is_fixed_by_the_seed(self):
        model = scramble(small(seed=3))
        model.compile("sgd")
        x = images(8)
        first = model.evaluate(x, batch_size=4, verbose=0)
        model.fit(x, batch_size=4, verbose=0, validation_data=(x,), epochs=2)
        scramble(model)
        assert model.evaluate(x, batch_size=4, verbose=0) == first
        one, two = (model.predict(x, batch_size=4, verbose=0)["hidden"] for _ in range(2))
        np.testing.assert_array_equal(one, two)
        assert (one[0] != one[4]).any()

    def test_masks_of_training_go_on_after_an_evaluation(self):
        """They are those of a model that is never evaluated."""
        x = images(8, 16, 16)
        evaluated, alone = (small(16, seed=3) for _ in range(2))
        evaluated.compile("sgd", **EAGERLY)
        # Of two batches: of one, as many masks would be drawn as in a step of training.
        evaluations = [
            lambda: evaluated.evaluate(x, batch_size=4, verbose=0),
            lambda: evaluated.predict(x, batch_size=4, verbose=0),
            lambda: evaluated(x),
        ]
        expected = [numpy(alone(x, training=True)["hidden"]) for _ in range(4)]
        assert len({hidden.tobytes() for hidden in expected}) == 4
        np.testing.assert_array_equal(numpy(evaluated(x, training=True)["hidden"]), expected[0])
        for evaluate, hidden in zip(evaluations, expected[1:], strict=True):
            evaluate()
            np.testing.assert_array_equal(numpy(evaluated(x, training=True)["hidden"]), hidden)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, dtype=policy)
        model = keras_cnv2.FCMAE(backbone, 64, decoder_dim=16, dtype=policy)
        model.compile("sgd", run_eagerly=True)
        assert np.isfinite(model.train_on_batch(images(2, 64, 64)))
        assert all(np.isfinite(w).all() for w in model.get_weights())

    @pytest.mark.slow
    @pytest.mark.skipif(not TENSORFLOW, reason="compiles with TensorFlow's XLA")
    @pytest.mark.parametrize("encoder", ENCODERS)
    def test_one_step_under_xla(self, encoder):
        import tensorflow as tf

        model = scramble(small(encoder=encoder))
        hidden = numpy(model(images())["hidden"])
        x = {"images": images(), "hidden": hidden}
        expected = float(model.reconstruction_loss(images(), model(images(), hidden=hidden)))
        model.compile("sgd", jit_compile=True)
        np.testing.assert_allclose(model.train_on_batch(tf.nest.map_structure(tf.constant, x)), expected, rtol=1e-4)
        assert np.isfinite(model.train_on_batch(tf.constant(images())))

    def test_drop_path_in_the_encoder(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=1, drop_path_rate=0.5)
        model = scramble(keras_cnv2.FCMAE(backbone, 32, decoder_dim=16))
        hidden = numpy(model(images())["hidden"])
        one, two, three = (
            numpy(model(images(), hidden=hidden, training=training)["features"]) for training in (True, False, False)
        )
        assert (one != two).any()
        np.testing.assert_array_equal(two, three)


class TestFineTuning:
    @pytest.mark.backends
    def test_backbone_shares_its_weights(self):
        model = small()
        classifier = keras.Sequential([model.backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        classifier.compile("sgd", "mse", **EAGERLY)
        before = model.get_weights()
        classifier.train_on_batch(images(), np.ones((4, 2)))
        changed = [v.path for v, a, b in zip(model.weights, before, model.get_weights()) if (a != b).any()]
        assert changed
        assert {v.path for v in model.backbone.weights} >= {*changed}

    def test_backbone_encodes_like_fcmae_without_masks(self):
        model = shared("dense")
        features = model(images(), hidden=np.zeros((4, 4, 4)))["features"]
        np.testing.assert_allclose(numpy(model.backbone(images())), numpy(features), rtol=1e-4, atol=1e-5)
