import inspect

import keras
import numpy as np
import pytest

import keras_cnv2
from tests.fcmae.small import EAGERLY, SMALL, TENSORFLOW, images, numpy, scramble, shared, small


class TestReconstruction:
    @pytest.mark.backends
    def test_keeps_visible_pixels_and_paints_the_others_in_range(self):
        model = shared()
        hidden = numpy(model(images())["hidden"])
        picture = model.reconstruct(images(), hidden=hidden)
        covered = np.kron(hidden, np.ones((1, 8, 8))) == 1
        np.testing.assert_array_equal(picture[~covered], images()[~covered])
        assert (picture[covered] != images()[covered]).mean() > 0.9
        assert picture.min() >= 0
        assert picture.max() <= 255

    def test_of_a_dictionary(self):
        model = shared()
        hidden = numpy(model(images())["hidden"])
        picture = model.reconstruct({"images": images(), "hidden": hidden})
        np.testing.assert_array_equal(picture, model.reconstruct(images(), hidden=hidden))
        assert model.reconstruct({"images": images()}).shape == picture.shape

    @pytest.mark.parametrize("include_preprocessing", [True, False])
    @pytest.mark.parametrize("norm_pix_loss", [True, False])
    def test_perfect_prediction_gives_the_image_back(self, norm_pix_loss, include_preprocessing, monkeypatch):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, include_preprocessing=include_preprocessing)
        model = keras_cnv2.FCMAE(backbone, 64, decoder_dim=16, norm_pix_loss=norm_pix_loss)
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
        others = {"dtype": "mixed_bfloat16", "backbone": "atto"}
        assert {**config, **others} == {**given, **others, "trainable": True}
        assert keras_cnv2.FCMAE.from_config(config).get_config() == config

    def test_drawn_seed_is_kept(self, tmp_path):
        """Evaluation has the same masks after saving and loading. Another model has others."""
        model = small(seed=None)
        assert model.seed != small(seed=None).seed
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for each in (model, again):
            each.run_eagerly = TENSORFLOW
        one, two = (each.predict(images(), verbose=0)["hidden"] for each in (model, again))
        np.testing.assert_array_equal(one, two)

    def test_frozen_stays_frozen(self):
        model = small()
        model.backbone.trainable = False
        again = keras_cnv2.FCMAE.from_config(model.get_config())
        assert again.backbone.trainable_weights == []
        assert len(again.trainable_weights) == len(model.trainable_weights) > 0
        model.trainable = False
        again = keras_cnv2.FCMAE.from_config(model.get_config())
        assert not again.trainable
        assert again.trainable_weights == []
        config = {name: value for name, value in model.get_config().items() if name != "trainable"}
        assert keras_cnv2.FCMAE.from_config(config).trainable  # as older files have it

    def test_what_was_set_on_single_layers_is_kept(self, tmp_path):
        model = small(decoder_depth=2)
        frozen = (model.proj, model.mask_token, model.decoder[1], model.pred)
        for layer in frozen:
            layer.trainable = False
        model.decoder[0].remat = True
        model.compile("adam")
        model.optimizer.build(model.trainable_variables)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert {layer.name for layer in again.layers if not layer.trainable} == {layer.name for layer in frozen}
        assert [block.remat for block in again.decoder] == [True, False]
        assert len(again.optimizer.variables) == len(model.optimizer.variables)

    @pytest.mark.backends
    @pytest.mark.parametrize("encoder", ["visible", pytest.param("dense", marks=pytest.mark.slow)])
    def test_keras_file(self, encoder, tmp_path):
        model = scramble(small(encoder=encoder))
        model.compile("sgd", **EAGERLY)
        model.save(tmp_path / "fcmae.keras")
        again = keras.saving.load_model(tmp_path / "fcmae.keras")
        hidden = numpy(model(images())["hidden"])
        for name, value in model(images(), hidden=hidden).items():
            np.testing.assert_array_equal(numpy(again(images(), hidden=hidden)[name]), numpy(value))
        assert np.isfinite(again.train_on_batch(images()))

    def test_compiled_is_compiled_after_loading(self, tmp_path):
        model = small()
        model.compile(keras.optimizers.Adam(0.25), run_eagerly=True)
        model.train_on_batch(images())
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert again.run_eagerly
        for one, two in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(numpy(one), numpy(two))
        older = {**model.get_compile_config(), "loss": "mse", "metrics": {"prediction": "mse"}}
        again.compile_from_config(older)
        assert again.optimizer.learning_rate == 0.25

    @pytest.mark.skipif(not TENSORFLOW, reason="exports with TensorFlow")
    def test_export_without_a_signature(self, tmp_path):
        import tensorflow as tf

        model = scramble(small(encoder="dense", seed=1))
        model.export(tmp_path / "exported", verbose=False)
        exported = tf.saved_model.load(tmp_path / "exported")
        out, expected = exported.serve(images()), model(images())
        for name, value in expected.items():
            np.testing.assert_allclose(out[name], value, rtol=1e-4, atol=1e-4)

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
            ("mask_ratio", None),
            ("mask_ratio", "0.6"),
            ("stem_stride", 3),
            ("channels", 0),
            ("decoder_dim", 0),
            ("decoder_depth", 0),
            ("encoder", "sparse"),
        ],
    )
    def test_impossible_arguments(self, argument, value):
        name = {"backbone": "size", "channels": "input_shape"}.get(argument, argument)
        of_backbone = argument in ("backbone", "stem_stride", "channels")
        backbone = "atto" if of_backbone else shared().backbone
        with pytest.raises(ValueError, match=rf"(?s){name}.*Received: ") as error:
            keras_cnv2.FCMAE(**{"backbone": backbone, "image_size": 64, argument: value})
        assert "Received" in str(error.value)

    def test_numpy_ints(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=1)
        model = keras_cnv2.FCMAE(backbone, np.int64(16), decoder_dim=np.int64(8), decoder_depth=np.int32(2))
        assert model(images(1, 16, 16))["prediction"].shape == (1, 4, 192)
        assert keras_cnv2.FCMAE.from_config(model.get_config()).decoder_dim == 8

    def test_layers_in_front_of_the_backbone(self):
        x = keras.Input((32, 32, 3))
        scaled = keras_cnv2.ConvNeXtV2Backbone(**SMALL, input_tensor=keras.layers.Rescaling(255.0)(x))
        with pytest.raises(ValueError, match="into the dataset.*Received: backbone=.* comes out of other layers"):
            keras_cnv2.FCMAE(scaled, 64)
        assert keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL, input_tensor=x), 64, decoder_dim=8).built

    def test_loss_of_another_kind(self):
        for arguments in ({"loss": "mse"}, {"optimizer": "sgd", "loss": keras.losses.MeanSquaredError()}):
            with pytest.raises(ValueError, match="its own loss.*Received: loss="):
                shared().compile(**arguments)

    def test_metrics(self):
        for name in ("metrics", "weighted_metrics", "loss_weights"):
            with pytest.raises(ValueError, match=f"no labels for metrics.*Received: {{'{name}'"):
                shared().compile("sgd", **{name: {"prediction": "mse"}})

    def test_backbone_of_another_kind(self):
        for backbone in (keras_cnv2.ConvNeXtV2(**SMALL, classes=2), keras.Sequential(), None):
            with pytest.raises(ValueError, match=r"size or a ConvNeXtV2Backbone \(whose.*Received: backbone="):
                keras_cnv2.FCMAE(backbone, 64)

    def test_arguments_that_contradict_the_backbone(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
        with pytest.raises(ValueError, match=r"that of the backbone, 3. Received: channels=1"):
            keras_cnv2.FCMAE(backbone, 64, channels=1)
        with pytest.raises(ValueError, match=r"that of the backbone, 4. Received: stem_stride=2"):
            keras_cnv2.FCMAE(backbone, 64, stem_stride=2)
