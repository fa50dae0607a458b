import inspect

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.names import official_name
from tests import golden
from tests.golden import rule

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
ENCODERS = ("visible", "dense")
TENSORFLOW = keras.backend.backend() == "tensorflow"


def small(image_size=32, stem_stride=1, channels=3, **kwargs):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=stem_stride, input_shape=(None, None, channels))
    return keras_cnv2.FCMAE(backbone, image_size, decoder_dim=16, **kwargs)


def images(count=4, height=32, width=32, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, channels)).astype("float32")


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def scramble(model, seed=0):
    """Gives every weight a value, GRN's too, so that nothing hides behind a zero."""
    golden.set_weights(model, seed)
    return model


def from_reference(case, encoder):
    reference = golden.load(f"fcmae_{case}")
    model = keras_cnv2.FCMAE(
        str(reference["variant"]),
        image_size=int(reference["size"]),
        mask_ratio=float(reference["mask_ratio"]),
        norm_pix_loss=bool(reference["norm_pix"]),
        include_preprocessing=False,
        encoder=encoder,
    )
    golden.set_weights(model, reference["seed"])
    size = int(reference["size"])
    return reference, model, rule.image(int(reference["image_seed"]), len(reference["mask"]), size, size)


@pytest.mark.parametrize("encoder", ENCODERS)
class TestReference:
    @pytest.mark.skipif(not TENSORFLOW, reason="takes gradients with TensorFlow's tape")
    @pytest.mark.parametrize("case", ["atto_160", "atto_224", "nano_224", "tiny_224"])
    def test_loss_features_gradients(self, encoder, case):
        import tensorflow as tf

        reference, model, x = from_reference(case, encoder)
        with tf.GradientTape() as tape:
            out = model(x, hidden=reference["mask"])
            loss = model.reconstruction_loss(x, out)
        np.testing.assert_allclose(loss, reference["loss"], rtol=1e-5)
        np.testing.assert_allclose(out["features"][..., :32], reference["features"], atol=3e-5)
        np.testing.assert_allclose(out["prediction"][..., :64], reference["pred"], atol=3e-5)
        np.testing.assert_array_equal(out["hidden"], reference["mask"])

        gradients = tape.gradient(loss, model.trainable_variables)
        names = [*keras_cnv2.state_dict(model)]
        assert {f"grad_norm/{name}" for name in names} == {n for n in reference.files if n.startswith("grad_norm/")}
        for name, variable, gradient in zip(names, model.trainable_variables, gradients):
            gradient = official_name(variable.path)[1].to_torch(gradient.numpy())
            np.testing.assert_allclose(np.linalg.norm(gradient), reference[f"grad_norm/{name}"], rtol=1e-3)
            head = reference[f"grad_head/{name}"]
            # Four single values: compared with the largest of them, as one may be almost zero.
            np.testing.assert_allclose(gradient.ravel()[:4], head, rtol=1e-3, atol=1e-3 * abs(head).max())

    @pytest.mark.backends
    def test_loss_on_every_backend(self, encoder):
        reference, model, x = from_reference("atto_160", encoder)
        loss = model.reconstruction_loss(x, model(x, hidden=reference["mask"]))
        np.testing.assert_allclose(numpy(loss), reference["loss"], rtol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
class TestMasks:
    @pytest.mark.backends
    def test_hidden_pixels_change_no_feature(self, encoder):
        model = scramble(small(encoder=encoder))
        hidden = numpy(model(images())["hidden"])
        covered = np.kron(hidden, np.ones((1, 8, 8)))[..., None] == 1
        other = np.where(covered, images(seed=1), images())
        one, two = (numpy(model(x, hidden=hidden)["features"]) for x in (images(), other))
        np.testing.assert_array_equal(one, two)
        assert (one[hidden == 1] == 0).all()
        assert (one[hidden == 0] != 0).any(-1).all()

    def test_visible_pixels_do(self, encoder):
        model = scramble(small(encoder=encoder))
        hidden = numpy(model(images())["hidden"])
        one, two = (numpy(model(x, hidden=hidden)["features"]) for x in (images(), images(seed=1)))
        assert (one != two)[hidden == 0].mean() > 0.9

    @pytest.mark.backends
    def test_image_alone_and_in_a_batch(self, encoder):
        model = scramble(small(encoder=encoder))
        # Very different images: statistics over the batch would show.
        x = images() * np.array([1, 0.1, 0.01, 0.5], "float32").reshape(4, 1, 1, 1)
        out = model(x)
        for i in range(4):
            alone = model(x[i : i + 1], hidden=numpy(out["hidden"])[i : i + 1])
            for name in ("features", "prediction"):
                np.testing.assert_allclose(numpy(alone[name])[0], numpy(out[name])[i], rtol=1e-4, atol=1e-4)

    @pytest.mark.backends
    def test_drawn_masks(self, encoder):
        model = small(encoder=encoder)
        draws = [numpy(model(images(), training=True)["hidden"]) for _ in range(3)]
        assert all(((1 - hidden).sum((1, 2)) == 6).all() for hidden in draws)  # int(16 * 0.4)
        assert (draws[0] != draws[1]).any()
        assert (draws[1] != draws[2]).any()
        assert any((draws[0][0] != hidden).any() for hidden in draws[0][1:])

    @pytest.mark.parametrize(
        ("height", "width", "stem_stride", "channels", "count", "ratio"),
        [(32, 32, 1, 3, 1, 0.6), (16, 48, 1, 1, 2, 0.5), (64, 32, 2, 4, 3, 0.8), (96, 64, 4, 3, 1, 0.2)],
    )
    def test_any_shape(self, encoder, height, width, stem_stride, channels, count, ratio):
        model = small((height, width), stem_stride, channels, mask_ratio=ratio, encoder=encoder)
        x, patch = images(count, height, width, channels), 8 * stem_stride
        out = model(x)
        h, w = height // patch, width // patch
        assert out["prediction"].shape == (count, h * w, patch * patch * channels)
        assert out["hidden"].shape == (count, h, w)
        assert out["features"].shape == (count, h, w, 32)
        assert model.reconstruct(x).shape == x.shape
        model.compile("sgd", run_eagerly=True)
        assert np.isfinite(model.train_on_batch(x))


class TestEncodersAgree:
    def test_on_given_masks(self):
        visible, dense = (scramble(small(encoder=encoder)) for encoder in ENCODERS)
        out = dense(images())
        again = visible(images(), hidden=out["hidden"])
        for name in ("features", "prediction"):
            np.testing.assert_allclose(numpy(again[name]), numpy(out[name]), rtol=1e-4, atol=1e-4)

    def test_another_count_than_the_ratio_gives(self):
        visible, dense = (scramble(small(encoder=encoder)) for encoder in ENCODERS)
        hidden = np.zeros((4, 4, 4), "float32")
        hidden[:, 1] = 1
        one, two = (numpy(model(images(), hidden=hidden)["features"]) for model in (visible, dense))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


class TestGivenMasks:
    UNEVEN = np.array([[[0, 0], [0, 1]], [[0, 1], [1, 1]]])

    def test_dense_takes_any(self):
        model = small(16, encoder="dense")
        assert np.isfinite(numpy(model(images(2, 16, 16), hidden=self.UNEVEN)["prediction"])).all()

    @pytest.mark.backends
    def test_visible_wants_the_same_count(self):
        with pytest.raises(ValueError, match=r"same number of patches visible.*Received: visible patches \[3, 1\]"):
            small(16)(images(2, 16, 16), hidden=self.UNEVEN)
        with pytest.raises(ValueError, match="at least one"):
            small(16)(images(2, 16, 16), hidden=np.ones((2, 2, 2)))

    @pytest.mark.skipif(not TENSORFLOW, reason="compiles with TensorFlow")
    def test_compiled_function_cannot_look_so_it_answers_nan(self):
        import tensorflow as tf

        model = small(16, mask_ratio=0.5)
        run = tf.function(lambda hidden: model(images(2, 16, 16), hidden=hidden))
        prediction = run(tf.constant(self.UNEVEN, "float32"))["prediction"]
        assert np.isnan(prediction).all()
        even = tf.constant([[[0, 1], [1, 0]], [[0, 0], [1, 1]]], "float32")
        assert np.isfinite(run(even)["prediction"]).all()

    @pytest.mark.parametrize("hidden", [np.zeros((4, 4, 3)), np.zeros((4, 32, 32)), np.zeros((4, 16))])
    def test_other_shape(self, hidden):
        with pytest.raises(ValueError, match=r"hidden must have the shape \(N, 4, 4\). Received"):
            small()(images(), hidden=hidden)

    def test_other_images(self):
        with pytest.raises(ValueError, match=r"images must have the shape \(N, 32, 32, 3\). Received"):
            small()(images(2, 32, 64))


class TestTraining:
    @pytest.mark.backends
    @pytest.mark.parametrize("encoder", ENCODERS)
    def test_fit_lowers_the_loss(self, encoder):
        keras.utils.set_random_seed(0)
        model = small(encoder=encoder, seed=0)
        model.compile(keras.optimizers.Adam(1e-2))
        ramps = np.broadcast_to(np.linspace(0, 1, 32)[:, None, None], (8, 32, 32, 3)) * images(8, 1, 1)
        history = model.fit(ramps, epochs=20, batch_size=4, verbose=0).history["loss"]
        assert history[-1] < 0.5 * history[0]

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
        x = images(6)
        first = model.evaluate(x, batch_size=4, verbose=0)
        model.fit(x, batch_size=4, verbose=0, validation_data=(x,), epochs=2)
        scramble(model)
        assert model.evaluate(x, batch_size=4, verbose=0) == first
        one, two = (model.predict(x, batch_size=4, verbose=0)["hidden"] for _ in range(2))
        np.testing.assert_array_equal(one, two)
        assert (one[0] != one[4]).any()

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        model = keras_cnv2.FCMAE("atto", 64, decoder_dim=16, dtype=policy)
        model.compile("sgd", run_eagerly=True)
        assert np.isfinite(model.train_on_batch(images(2, 64, 64)))
        assert all(np.isfinite(w).all() for w in model.get_weights())

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


class TestReconstruction:
    @pytest.mark.backends
    def test_keeps_visible_pixels_and_paints_the_others_in_range(self):
        model = scramble(small())
        hidden = numpy(model(images())["hidden"])
        picture = model.reconstruct(images(), hidden=hidden)
        covered = np.kron(hidden, np.ones((1, 8, 8))) == 1
        np.testing.assert_array_equal(picture[~covered], images()[~covered])
        assert (picture[covered] != images()[covered]).mean() > 0.9
        assert picture.min() >= 0
        assert picture.max() <= 255

    @pytest.mark.parametrize("include_preprocessing", [True, False])
    @pytest.mark.parametrize("norm_pix_loss", [True, False])
    def test_perfect_prediction_gives_the_image_back(self, norm_pix_loss, include_preprocessing, monkeypatch):
        model = keras_cnv2.FCMAE(
            "atto", 64, decoder_dim=16, include_preprocessing=include_preprocessing, norm_pix_loss=norm_pix_loss
        )
        x = images(2, 64, 64) if include_preprocessing else images(2, 64, 64) / 64 - 2
        scaled = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225] if include_preprocessing else x
        patches = scaled.reshape(2, 2, 32, 2, 32, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, -1)
        if norm_pix_loss:
            patches = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(
                patches.var(-1, ddof=1, keepdims=True) + 1e-6
            )
        out = {"prediction": patches.astype("float32"), "hidden": np.ones((2, 2, 2), "float32")}
        assert numpy(model.reconstruction_loss(x, out)) < 1e-8
        monkeypatch.setattr(type(model), "__call__", lambda self, *args, **kwargs: out)
        np.testing.assert_allclose(model.reconstruct(x), x, atol=1e-2)


class TestFineTuning:
    @pytest.mark.backends
    def test_backbone_shares_its_weights(self):
        model = small()
        classifier = keras.Sequential([model.backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        classifier.compile("sgd", "mse")
        before = model.get_weights()
        classifier.train_on_batch(images(), np.ones((4, 2)))
        changed = [v.path for v, a, b in zip(model.weights, before, model.get_weights()) if (a != b).any()]
        assert changed
        assert {v.path for v in model.backbone.weights} >= {*changed}

    def test_backbone_encodes_like_fcmae_without_masks(self):
        model = scramble(small(encoder="dense"))
        features = model(images(), hidden=np.zeros((4, 4, 4)))["features"]
        np.testing.assert_allclose(numpy(model.backbone(images())), numpy(features), rtol=1e-4, atol=1e-5)


class TestConfig:
    def test_holds_every_argument(self):
        given = {
            "image_size": (64, 128),
            "channels": 5,
            "stem_stride": 2,
            "include_preprocessing": False,
            "mask_ratio": 0.3,
            "decoder_dim": 24,
            "decoder_depth": 2,
            "norm_pix_loss": False,
            "encoder": "dense",
            "seed": 11,
            "dtype": "mixed_bfloat16",
            "name": "mine",
        }
        assert {*inspect.signature(keras_cnv2.FCMAE).parameters} == {"backbone", *given}
        config = keras_cnv2.FCMAE("atto", **given).get_config()
        assert keras.dtype_policies.get(config["dtype"]).name == "mixed_bfloat16"
        assert {**config, "dtype": "mixed_bfloat16", "backbone": "atto"} == {**given, "backbone": "atto"}
        assert keras_cnv2.FCMAE.from_config(config).get_config() == config

    @pytest.mark.backends
    @pytest.mark.parametrize("encoder", ENCODERS)
    def test_keras_file(self, encoder, tmp_path):
        model = scramble(small(encoder=encoder))
        model.compile("sgd")
        model.train_on_batch(images())
        model.save(tmp_path / "fcmae.keras")
        again = keras.saving.load_model(tmp_path / "fcmae.keras")
        hidden = numpy(model(images())["hidden"])
        for name, value in model(images(), hidden=hidden).items():
            np.testing.assert_array_equal(numpy(again(images(), hidden=hidden)[name]), numpy(value))
        assert np.isfinite(again.train_on_batch(images()))

    def test_summary_before_the_first_call(self):
        lines = []
        small().summary(print_fn=lines.append)
        text = "\n".join(lines)
        assert all(name in text for name in ("backbone", "proj", "mask_token", "decoder_0", "pred"))
        assert "?" not in text

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("backbone", "small"),
            ("image_size", 100),
            ("image_size", 64.0),
            ("image_size", (64, 0)),
            ("image_size", (64, 64, 3)),
            ("mask_ratio", 0.0),
            ("mask_ratio", 1.0),
            ("mask_ratio", 0.99),
            ("stem_stride", 3),
            ("channels", 0),
            ("decoder_dim", 0),
            ("decoder_depth", 0),
            ("encoder", "sparse"),
        ],
    )
    def test_impossible_arguments(self, argument, value):
        name = {"backbone": "size", "channels": "input_shape"}.get(argument, argument)
        with pytest.raises(ValueError, match=rf"(?s){name}.*Received: ") as error:
            keras_cnv2.FCMAE(**{"backbone": "atto", "image_size": 64, argument: value})
        assert "Received" in str(error.value)

    def test_arguments_that_contradict_the_backbone(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
        with pytest.raises(ValueError, match=r"that of the backbone, 3. Received: channels=1"):
            keras_cnv2.FCMAE(backbone, 64, channels=1)
        with pytest.raises(ValueError, match=r"that of the backbone, 4. Received: stem_stride=2"):
            keras_cnv2.FCMAE(backbone, 64, stem_stride=2)
