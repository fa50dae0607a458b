import logging
import warnings

import h5py
import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.keras_internals import all_layers, kernel_without_lora
from tests.golden import rule

pytestmark = pytest.mark.lowest

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def classifier(**kwargs):
    return keras_cnv2.ConvNeXtV2(**{**SMALL, "classes": 5, **kwargs})


def backbone():
    return keras_cnv2.ConvNeXtV2Backbone(**SMALL)


def fcmae():
    return keras_cnv2.FCMAE(backbone(), 64, decoder_dim=16)


def pseudo(model, seed=0):
    """Official names -> pseudo-weights, for a model."""
    return {name: rule.tensor(seed, name, value.shape) for name, value in keras_cnv2.state_dict(model).items()}


def snapshot(model):
    return [w.copy() for w in model.get_weights()]


def unchanged(model, before):
    return all((a == b).all() for a, b in zip(before, model.get_weights()))


def test_not_finite_weights_are_said(caplog):
    source, target = classifier(), classifier()
    tensors = pseudo(source)
    keras_cnv2.load_checkpoint(target, tensors)
    assert caplog.messages == []
    bad = [*tensors][3:10]
    for number, name in enumerate(bad):
        tensors[name].flat[-1] = (np.nan, np.inf, -np.inf)[number % 3]
    keras_cnv2.load_checkpoint(target, tensors)
    assert len(caplog.messages) == 1
    who, what = caplog.messages[0].split(": ", 1)
    count, named = what.split(" tensors hold NaN or infinities, so that outputs will, too: ")
    assert (who, count) == (target.name, "7")
    assert {*named.removesuffix(", ...").split(", ")} < {*bad}
    assert named.endswith(", ...")
    assert np.isnan(keras_cnv2.state_dict(target)[bad[0]].flat[-1])  # loaded as they are


class TestNames:
    def test_official_dense(self):
        shapes = {name: value.shape for name, value in keras_cnv2.state_dict(classifier()).items()}
        assert shapes["downsample_layers.0.0.weight"] == (8, 3, 4, 4)
        assert shapes["downsample_layers.0.1.bias"] == (8,)
        assert shapes["downsample_layers.3.0.weight"] == (24,)
        assert shapes["downsample_layers.3.1.weight"] == (32, 24, 2, 2)
        assert shapes["stages.2.1.dwconv.weight"] == (24, 1, 7, 7)
        assert shapes["stages.2.1.pwconv1.weight"] == (96, 24)
        assert shapes["stages.2.1.grn.gamma"] == (1, 1, 1, 96)
        assert shapes["stages.2.1.pwconv2.weight"] == (24, 96)
        assert shapes["norm.weight"] == (32,)
        assert shapes["head.weight"] == (5, 32)
        assert len(shapes) == 4 + 3 * 4 + 5 * 10 + 4

    def test_official_fcmae(self):
        shapes = {name: value.shape for name, value in keras_cnv2.state_dict(fcmae()).items()}
        assert shapes["encoder.stages.0.0.dwconv.weight"] == (8, 1, 7, 7)
        assert shapes["proj.weight"] == (16, 32, 1, 1)
        assert shapes["mask_token"] == (1, 16, 1, 1)
        assert shapes["decoder.0.grn.beta"] == (1, 1, 1, 64)
        assert shapes["pred.weight"] == (32 * 32 * 3, 16, 1, 1)
        assert "norm.weight" not in shapes
        assert "encoder.norm.weight" not in shapes

    def test_unknown_naming(self):
        with pytest.raises(ValueError, match="Received: naming='theirs'"):
            keras_cnv2.state_dict(backbone(), "theirs")

    def test_model_of_other_layers(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="mine")])
        with pytest.raises(ValueError, match=r"mine/kernel"):
            keras_cnv2.state_dict(model)

    def test_quantized_model(self):
        model = keras_cnv2.ConvNeXtV2(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), classes=5)
        tensors = pseudo(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Keras tells of each layer that it cannot quantize
            model.quantize("int8")
        message = rf"cannot be loaded.* then quantize\. Received: model='{model.name}', quantized as int8"
        with pytest.raises(ValueError, match=message):
            keras_cnv2.load_checkpoint(model, tensors)
        with pytest.raises(ValueError, match=message):
            keras_cnv2.state_dict(model)


@pytest.mark.backends
@pytest.mark.parametrize("make", [classifier, backbone, fcmae])
def test_there_and_back(make, tmp_path):
    """Names and arrays, then files of Keras."""
    model, again = make(), make()
    tensors = pseudo(model)
    keras_cnv2.load_checkpoint(model, tensors)
    back = keras_cnv2.state_dict(model)
    assert [*back] == [*tensors]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
    before = snapshot(again)
    for suffix, save in ((".keras", model.save), (".weights.h5", model.save_weights)):
        again.set_weights(before)
        save(tmp_path / f"m{suffix}")
        keras_cnv2.load_checkpoint(again, tmp_path / f"m{suffix}")
        assert unchanged(again, snapshot(model))


def with_lora(model):
    """The model with LoRA wherever it can be."""
    rng = np.random.default_rng(7)
    for layer in all_layers(model):
        if type(layer) in (keras.layers.Dense, keras.layers.Conv2D):
            layer.enable_lora(2, lora_alpha=6)
            layer.lora_kernel_b.assign(rng.normal(0, 0.5, layer.lora_kernel_b.shape))
    return model


@pytest.mark.backends
class TestLora:
    def test_kernels_are_merged(self):
        plain, model = classifier(), classifier()
        tensors = pseudo(plain)
        keras_cnv2.load_checkpoint(model, tensors)
        merged = keras_cnv2.state_dict(with_lora(model))
        assert merged.keys() == tensors.keys()
        kernels = {name for name, tensor in tensors.items() if not np.array_equal(tensor, merged[name])}
        assert kernels == {
            name
            for name, tensor in tensors.items()
            if name.endswith("weight") and tensor.ndim > 1 and "dwconv" not in name
        }
        keras_cnv2.load_checkpoint(plain, merged)
        images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
        np.testing.assert_allclose(*(keras.ops.convert_to_numpy(each(images)) for each in (model, plain)), rtol=1e-4)

    def test_adds_nothing_to_a_checkpoint(self):
        model = with_lora(classifier())
        tensors = pseudo(classifier())
        keras_cnv2.load_checkpoint(model, tensors)
        for name, tensor in keras_cnv2.state_dict(model).items():
            np.testing.assert_array_equal(tensor, tensors[name])
        assert model.get_layer("head").lora_enabled

    def test_not_rounded_in_half_precision(self):
        model = with_lora(keras_cnv2.ConvNeXtV2Backbone(**SMALL, dtype="mixed_bfloat16"))
        dense = model.get_layer("stages_0_0").pwconv1
        kernel, a, b = map(
            keras.ops.convert_to_numpy, (kernel_without_lora(dense), dense.lora_kernel_a, dense.lora_kernel_b)
        )
        received = keras_cnv2.state_dict(model)["stages.0.0.pwconv1.weight"]
        np.testing.assert_allclose(received, (kernel + 3 * (a @ b)).T, rtol=1e-5, atol=1e-6)


class Around(keras.Model):
    """A user's model, which makes one of ours only when it is built."""

    def __init__(self, make):
        super().__init__(name="around")
        self.make = make

    def build(self, input_shape):
        self.inner = self.make()


class TestModelMadeInABuild:
    @pytest.mark.parametrize("make", [classifier, backbone, fcmae])
    def test_there_and_back(self, make):
        around, tensors = Around(make), pseudo(make())
        around.build((None, 64, 64, 3))
        assert around.inner.weights[0].path.startswith("around/")
        keras_cnv2.load_checkpoint(around.inner, tensors)
        back = keras_cnv2.state_dict(around.inner)
        assert [*back] == [*tensors]
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(back[name], tensor)

    def test_weights(self, tmp_path):
        source = backbone()
        keras_cnv2.save_checkpoint(source, tmp_path / "m.safetensors")
        around = Around(lambda: keras_cnv2.ConvNeXtV2Backbone(**SMALL, weights=tmp_path / "m.safetensors"))
        around.build((None, 64, 64, 3))
        assert unchanged(around.inner, snapshot(source))

    def test_names_that_are_not_ours(self):
        layers = [keras.Input((4,)), keras.layers.Dense(2, name="mine"), keras.layers.Dense(2, name="yours")]
        around = Around(lambda: keras.Sequential(layers))
        around.build((None, 4))
        with pytest.raises(ValueError, match=r"consist of this package's layers.*'around/.*mine/kernel'"):
            keras_cnv2.state_dict(around.inner)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_types(dtype):
    model = classifier()
    keras_cnv2.load_checkpoint(model, {name: value.astype(dtype) for name, value in pseudo(model).items()})
    expected = pseudo(model)["head.weight"].astype(dtype).astype("float32")
    np.testing.assert_array_equal(keras_cnv2.state_dict(model)["head.weight"], expected)


def test_double_precision_is_kept():
    model = classifier(dtype="float64")
    tensors = {name: np.float64(value) + 1e-12 for name, value in pseudo(model).items()}
    keras_cnv2.load_checkpoint(model, tensors)
    np.testing.assert_array_equal(keras_cnv2.state_dict(model)["norm.bias"], tensors["norm.bias"])


class TestParts:
    def test_encoder_into_a_classifier(self, caplog):
        source, target = fcmae(), classifier()
        before = snapshot(target)
        keras_cnv2.load_checkpoint(target, pseudo(source))
        message = "not taken from the checkpoint, keeps its initial values: head, norm"
        assert caplog.messages == [f"{target.name}: {message}"]
        loaded, expected = keras_cnv2.state_dict(target), pseudo(source)
        for name, value in loaded.items():
            if not name.startswith(("norm", "head")):
                np.testing.assert_array_equal(value, expected[f"encoder.{name}"])
        for value, old in zip(target.get_weights()[-4:], before[-4:]):
            np.testing.assert_array_equal(value, old)

    def test_classifier_into_a_backbone(self, caplog):
        caplog.set_level(logging.INFO)
        source, target = classifier(), backbone()
        keras_cnv2.load_checkpoint(target, pseudo(source))
        assert caplog.messages == [f"{target.name}: in the checkpoint, left out: head, norm"]

    def test_encoder_alone_into_fcmae(self, caplog):
        target = fcmae()
        keras_cnv2.load_checkpoint(target, pseudo(backbone()))
        assert caplog.messages == ["fcmae: not taken from the checkpoint, keeps its initial values: decoder"]


class TestMisfits:
    def load(self, change, make=classifier):
        model = make()
        tensors = pseudo(model)
        change(tensors)
        before = snapshot(model)
        with pytest.raises(ValueError, match="nothing was loaded") as error:
            keras_cnv2.load_checkpoint(model, tensors)
        assert unchanged(model, before)
        return str(error.value)

    def test_everything_is_listed_at_once(self):
        def change(tensors):
            del tensors["stages.0.0.norm.weight"], tensors["head.bias"]
            tensors["stages.9.0.norm.weight"] = np.zeros(8, "float32")
            tensors["norm.weight"] = np.zeros(31, "float32")
            tensors["norm.bias"] = np.zeros(32, "int64")

        message = self.load(change)
        assert "Received 5 misfits" in message
        assert "missing: stages.0.0.norm.weight" in message
        assert "missing: head.bias" in message
        assert "left over: stages.9.0.norm.weight" in message
        assert "shape: norm.weight is (31,), expected (32,)" in message
        assert "dtype: norm.bias is int64" in message

    def test_norm_without_which_the_head_means_nothing(self):
        def change(tensors):
            del tensors["norm.weight"], tensors["norm.bias"]

        assert "missing: norm.weight" in self.load(change)

    @pytest.mark.parametrize("name", ["proj.bias", "mask_token", "decoder.0.grn.beta", "encoder.stages.0.0.norm.bias"])
    def test_half_a_decoder_or_encoder(self, name):
        assert f"missing: {name}" in self.load(lambda t: t.pop(name), fcmae)

    def test_unknown_tensor(self):
        assert "left over: extra" in self.load(lambda t: t.update(extra=np.zeros(3, "float32")))

    def test_transposed_kernel(self):
        def change(tensors):
            tensors["stages.0.0.pwconv1.weight"] = tensors["stages.0.0.pwconv1.weight"].T

        assert "shape: stages.0.0.pwconv1.weight is (8, 32), expected (32, 8)" in self.load(change)

    def test_names_with_and_without_the_prefix(self):
        model = backbone()
        tensors = pseudo(model)
        with pytest.raises(keras_cnv2.CheckpointError, match="left over: encoder.downsample_layers.0.0.bias"):
            keras_cnv2.load_checkpoint(model, {**tensors, "encoder.downsample_layers.0.0.bias": np.zeros(8)})

    def test_nothing(self):
        with pytest.raises(keras_cnv2.CheckpointError, match="not have the names of a ConvNeXt V2.*0 tensors"):
            keras_cnv2.load_checkpoint(backbone(), {})


class TestKerasFiles:
    def test_after_training(self, tmp_path):
        model, again = fcmae(), classifier()
        model.compile("adamw", run_eagerly=True)
        model.train_on_batch(np.zeros((2, 64, 64, 3)))
        model.save(tmp_path / "fcmae.keras")
        keras_cnv2.load_checkpoint(again, tmp_path / "fcmae.keras")
        np.testing.assert_array_equal(
            keras_cnv2.state_dict(again)["stages.3.0.pwconv2.weight"],
            keras_cnv2.state_dict(model)["encoder.stages.3.0.pwconv2.weight"],
        )

    def test_half_precision(self, tmp_path):
        model = classifier(dtype="bfloat16")
        model.save_weights(tmp_path / "m.weights.h5")
        again = classifier(weights=tmp_path / "m.weights.h5")
        for a, b in zip(again.get_weights(), model.get_weights()):
            np.testing.assert_array_equal(a, np.float32(b))

    def test_deeper_model(self, tmp_path):
        # Keras numbers layers by their kind: without names, four blocks of a file with five would load in silence.
        classifier(depths=(1, 1, 2, 2)).save_weights(tmp_path / "m.weights.h5")
        with pytest.raises(ValueError, match="left over: stages_3_1/dwconv/0"):
            classifier(weights=tmp_path / "m.weights.h5")

    def test_layer_with_more_weights_than_ours(self, tmp_path):
        classifier().save_weights(tmp_path / "m.weights.h5")
        with h5py.File(tmp_path / "m.weights.h5", "a") as file:
            file["layers/dense/vars/2"] = np.zeros(5, "float32")  # as after quantization
        with pytest.raises(ValueError, match="left over: head/2"):
            classifier(weights=tmp_path / "m.weights.h5")

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_truncated_file(self, tmp_path, suffix):
        path = tmp_path / f"m{suffix}"
        model = classifier()
        (model.save if suffix == ".keras" else model.save_weights)(path)
        content = path.read_bytes()
        for share in (0.0, 0.5, 0.98):
            path.write_bytes(content[: int(share * len(content))])
            with pytest.raises(ValueError, match="damaged, incomplete or not of the type"):
                keras_cnv2.load_checkpoint(model, path)


def test_a_model_of_another_size_is_told_what_the_file_has(tmp_path):
    path = tmp_path / "backbone.keras"
    backbone().save(path)
    message = (
        "Check size, channels and stem: the file has depths 1,1,2,1, dims 8,16,24,32, stem_stride 4 and 3 channels, "
        "the model depths 1,1,1,1, dims 8,8,8,8, stem_stride 2 and 3 channels. Received"
    )
    with pytest.raises(keras_cnv2.CheckpointError, match=message):
        keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), stem_stride=2, weights=path)
