import inspect

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.optimizers.layer_decay import layers_above
from keras_cnv2.restore import restore_model
from tests import golden
from tests.golden import rule
from tests.outputs import outputs

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.backends
def test_stage_statistics():
    reference = golden.load("dense_nano")
    backbone = keras_cnv2.ConvNeXtV2Backbone("nano", include_preprocessing=False)
    golden.set_weights(backbone, reference["seed"])
    model = keras.Model(backbone.input, [*backbone.pyramid_outputs.values()])
    tolerance = 1e-5 if keras.backend.backend() == "tensorflow" else 1e-4
    # The sides are no multiples of the stride. Classifiers have the other cases.
    stages = outputs(model, rule.image(int(reference["seed"]), 1, 200, 215))
    golden.assert_stages_match(stages, reference, "odd", tolerance)


@pytest.mark.backends
@pytest.mark.parametrize(("stem_stride", "first"), [(4, 2), (2, 1), (1, 0)])
def test_pyramid_levels_follow_the_strides(stem_stride, first):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=stem_stride, input_shape=(64, 96, 3))
    assert [*backbone.pyramid_outputs] == [*backbone.pyramid_level_inputs] == [f"P{first + i}" for i in range(4)]
    for level, tensor in backbone.pyramid_outputs.items():
        stride = 2 ** int(level[1:])
        assert tuple(tensor.shape[1:3]) == (64 // stride, 96 // stride)
        assert backbone.get_layer(backbone.pyramid_level_inputs[level]).output is tensor
    assert backbone.output is tensor


@pytest.mark.backends
def test_pyramid_norms():
    plain = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
    normed = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
    plain.set_weights([np.random.default_rng(0).normal(0, 0.2, w.shape) for w in plain.weights])
    for layer in plain.layers:
        normed.get_layer(layer.name).set_weights(layer.get_weights())
    assert [*normed.pyramid_level_inputs.values()] == [f"pyramid_norm_{stage}" for stage in range(4)]
    x = np.random.default_rng(0).uniform(0, 255, (2, 70, 64, 3))
    assert [*normed(keras.Input((70, 64, 3)))] == ["P2", "P3", "P4", "P5"]
    assert normed.pyramid_outputs == normed.output
    before, after = (outputs(keras.Model(m.input, [*m.pyramid_outputs.values()]), x) for m in (plain, normed))
    for features, found in zip(before, after, strict=True):
        variance = features.var(-1, keepdims=True)
        expected = (features - features.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-6)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.backends
def test_pyramid_norms_in_a_keras_file(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
    for weight in backbone.trainable_variables[-8:]:
        weight.assign(np.random.default_rng(0).normal(0, 1, weight.shape))
    backbone.save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    for level, features in again(x).items():
        np.testing.assert_array_equal(numpy(features), numpy(backbone(x)[level]))
    assert again.pyramid_level_inputs == backbone.pyramid_level_inputs


def test_pyramid_norms_are_no_part_of_pretraining():
    with pytest.raises(ValueError, match="without pyramid norms.*Received: "):
        keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True), image_size=64)


def test_pyramid_norms_of_a_folded_backbone():
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for weight in backbone.trainable_variables:
        weight.assign(rng.normal(weight.path.endswith("gamma"), 0.2, weight.shape))
    folded = keras_cnv2.fold(backbone)
    assert [*folded.pyramid_outputs] == [*folded.pyramid_level_inputs] == ["P2", "P3", "P4", "P5"]
    x = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    for level, features in folded(x).items():
        np.testing.assert_allclose(numpy(features), numpy(backbone(x)[level]), atol=1e-4)


def test_pyramid_norms_lie_above_the_stages():
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
    paths = [v.path for v in backbone.trainable_variables]
    above = dict(zip(paths, layers_above(paths, "single")))
    assert {above[path] for path in paths if path.startswith("pyramid_norm")} == {0}
    assert max(above.values()) == sum(SMALL["depths"])


def dilated(output_stride, **arguments):
    """A backbone with the weights of the reference, and the reference."""
    reference = golden.load("dilated")
    sizes = {name: tuple(reference[name].tolist()) for name in ("depths", "dims")}
    model = keras_cnv2.ConvNeXtV2Backbone(
        **sizes, include_preprocessing=False, output_stride=output_stride, **arguments
    )
    seed, shapes = int(reference["seed"]), {k: v.shape for k, v in keras_cnv2.state_dict(model, "timm").items()}
    keras_cnv2.load_checkpoint(model, {name: rule.tensor(seed, name, shape) for name, shape in shapes.items()})
    return model, reference, rule.image(seed, *reference["images"])


class TestOutputStride:
    @pytest.mark.backends
    @pytest.mark.parametrize("output_stride", [8, 16])
    def test_reference(self, output_stride):
        """The maps of timm."""
        backbone, reference, images = dilated(output_stride)
        model = keras.Model(backbone.input, [*backbone.pyramid_outputs.values()])
        maps = outputs(model, images)
        for stage, features in enumerate(maps):
            expected = reference[f"{output_stride}/stage{stage}"]
            np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())
        assert maps[-1].shape[1:3] == (64 // output_stride, 48 // output_stride)
        assert [*backbone.pyramid_outputs] == ["P2", "P3", "P4", "P5"]

    @pytest.mark.slow
    @pytest.mark.parametrize("output_stride", [8, 16])
    def test_timm(self, output_stride, tmp_path):
        """A folder of ours in timm, whose package is needed."""
        torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
        backbone, _, images = dilated(output_stride)
        keras_cnv2.save_pretrained(backbone, tmp_path / "it", "timm")
        theirs = timm.create_model(f"local-dir:{tmp_path / 'it'}", pretrained=True).eval()
        with torch.no_grad():
            expected = theirs.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(outputs(backbone, images), expected.transpose(0, 2, 3, 1), atol=1e-4)

    def test_saved_and_folded(self, tmp_path):
        backbone, _, images = dilated(16, input_shape=(64, 48, 3))
        expected = outputs(backbone, images)
        backbone.save(tmp_path / "it.keras")
        keras_cnv2.save_checkpoint(backbone, tmp_path / "it.safetensors")
        for again in (
            keras.saving.load_model(tmp_path / "it.keras"),
            restore_model(str(tmp_path / "it.keras")),
            restore_model(str(tmp_path / "it.safetensors")),
        ):
            assert again.output_stride == 16
            np.testing.assert_array_equal(outputs(again, images), expected)
        np.testing.assert_allclose(outputs(keras_cnv2.fold(backbone), images), expected, atol=1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("output_stride", [8, 16])
    def test_exported(self, output_stride, tmp_path):
        """Exports compare their outputs with the model's."""
        backbone, _, images = dilated(output_stride, input_shape=(64, 48, 3))
        keras_cnv2.export_onnx(backbone, tmp_path / "it.onnx")
        keras_cnv2.export_litert(backbone, tmp_path / "it.tflite")
        keras_cnv2.export_saved_model(backbone, tmp_path / "it")

    def test_own_strides_are_the_default(self):
        assert keras_cnv2.ConvNeXtV2Backbone(**SMALL).output_stride is None
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=2, output_stride=8, input_shape=(32, 32, 3))
        assert [tensor.shape[1] for tensor in backbone.pyramid_outputs.values()] == [16, 8, 4, 4]

    @pytest.mark.parametrize(("output_stride", "stem_stride"), [(32, 4), (4, 4), ("8", 4), (16, 2), (8, 1)])
    def test_impossible(self, output_stride, stem_stride):
        with pytest.raises(ValueError, match="output_stride must be None.*Received: output_stride="):
            keras_cnv2.ConvNeXtV2Backbone(**SMALL, output_stride=output_stride, stem_stride=stem_stride)

    def test_models_that_need_own_strides(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, output_stride=16, pyramid_norms=True)
        for build in (keras_cnv2.detection.retinanet, keras_cnv2.detection.mask_rcnn):
            with pytest.raises(ValueError, match="without output_stride. Received: output_stride=16"):
                build(backbone, classes=2)
        with pytest.raises(ValueError, match="without output_stride.*Received: "):
            keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL, output_stride=16), image_size=64)


class TestOutLevels:
    @pytest.mark.backends
    @pytest.mark.parametrize("norms", [False, True])
    @pytest.mark.parametrize("levels", [("P3",), ("P4", "P2"), ["P3", "P5"]])
    def test_maps(self, norms, levels, tmp_path):
        """They are those of the whole encoder, also after saving."""
        whole = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=norms)
        rng = np.random.default_rng(0)
        for weight in whole.trainable_variables:
            weight.assign(rng.normal(weight.path.endswith("gamma"), 0.2, weight.shape))
        part = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=norms, out_levels=levels)
        keras_cnv2.load_checkpoint(part, keras_cnv2.state_dict(whole))
        part.save(tmp_path / "it.keras")
        x = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
        expected = outputs(keras.Model(whole.input, whole.pyramid_outputs), x)
        for model in (part, keras.saving.load_model(tmp_path / "it.keras"), restore_model(str(tmp_path / "it.keras"))):
            received = outputs(model, x)
            assert [*received] == sorted(levels) == [*model.out_levels] == [*model.pyramid_level_inputs]
            for level, features in received.items():
                np.testing.assert_array_equal(features, expected[level])

    def test_stages_that_are_left_out(self, caplog, tmp_path):
        whole = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
        part = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True, out_levels=["P3"])
        assert {layer.name for layer in part.layers} < {layer.name for layer in whole.layers}
        assert not any(layer.name.startswith(("stages_2", "pyramid_norm_0")) for layer in part.layers)
        with caplog.at_level("INFO"):
            keras_cnv2.load_checkpoint(part, keras_cnv2.state_dict(whole))
        assert "left out: pyramid norm 0, pyramid norm 2, pyramid norm 3, stage 2, stage 3" in caplog.text
        with pytest.raises(ValueError, match="holds whole encoders.*out_levels"):
            keras_cnv2.save_checkpoint(part, tmp_path / "it.safetensors")
        deeper = keras_cnv2.ConvNeXtV2Backbone(depths=(2, 1, 2, 1), dims=SMALL["dims"], pyramid_norms=True)
        with pytest.raises(ValueError, match="left over: stages.0.1.dwconv.weight"):
            keras_cnv2.load_checkpoint(part, keras_cnv2.state_dict(deeper))

    def test_weights_with_levels(self, tmp_path):
        model = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True, out_levels=["P4", "P5"])
        keras_cnv2.save_checkpoint(model, tmp_path / "it.safetensors")
        assert restore_model(str(tmp_path / "it.safetensors")).out_levels == ("P4", "P5")

    @pytest.mark.slow
    def test_exported(self, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        model = keras_cnv2.ConvNeXtV2Backbone(**SMALL, out_levels=["P2", "P3"], input_shape=(64, 64, 3))
        keras_cnv2.export_onnx(model, tmp_path / "it.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
        assert [output.name for output in session.get_outputs()] == ["P2", "P3"]
        keras_cnv2.export_saved_model(model, tmp_path / "it")

    @pytest.mark.parametrize("levels", [[], ["P1"], "P3", [3], {"P3"}])
    def test_impossible(self, levels):
        with pytest.raises(ValueError, match="out_levels must name some of.*P5.*Received: out_levels="):
            keras_cnv2.ConvNeXtV2Backbone(**SMALL, out_levels=levels)

    def test_no_part_of_pretraining(self):
        with pytest.raises(ValueError, match="without out_levels.*Received: "):
            keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL, out_levels=["P5"]), image_size=64)


def test_size_gives_depths_and_dims():
    backbone = keras_cnv2.ConvNeXtV2Backbone("pico")
    assert (backbone.depths, backbone.dims) == ((2, 2, 6, 2), (64, 128, 256, 512))


def test_config_holds_every_argument():
    arguments = {*inspect.signature(keras_cnv2.ConvNeXtV2Backbone).parameters} - {"weights", "input_tensor"}
    given = {
        "include_preprocessing": False,
        "mean": (0.4, 0.5),
        "std": (0.2, 0.3),
        "input_shape": (32, 48, 2),
        "stem_stride": 2,
        "drop_path_rate": 0.2,
        "pyramid_norms": True,
        "output_stride": 8,
        "out_levels": ("P2", "P4"),
        "dtype": "mixed_float16",
        "name": "mine",
    }
    assert arguments == {"size", "depths", "dims", *given}
    for architecture in (SMALL, {"size": "atto"}):
        config = keras_cnv2.ConvNeXtV2Backbone(**architecture, **given).get_config()
        assert keras.dtype_policies.get(config["dtype"]).name == "mixed_float16"
        assert {**config, "dtype": "mixed_float16"} == {**architecture, **given, "trainable": True}
        assert keras_cnv2.ConvNeXtV2Backbone.from_config(config).get_config() == config


@pytest.mark.backends
def test_keras_file(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
    backbone.save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    np.testing.assert_array_equal(numpy(again(x)), numpy(backbone(x)))
    assert [*again.pyramid_outputs] == ["P2", "P3", "P4", "P5"]


@pytest.mark.backends
def test_carries_a_head_of_other_layers(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
    model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    y = numpy(model(x))
    assert y.shape == (2, 3)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(keras.saving.load_model(tmp_path / "model.keras")(x)), y)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"size": "small"},
        {"size": 3},
        {"depths": (1, 1, 1, 1)},
        {"dims": (8, 16, 24, 32)},
        {"size": "atto", **SMALL},
    ],
)
def test_impossible_architecture(arguments):
    with pytest.raises(ValueError, match="Received: "):
        keras_cnv2.ConvNeXtV2Backbone(**arguments)


@pytest.mark.backends
def test_levels_are_the_outputs_of_a_model_as_they_are():
    """Keras's own kind of dict, in which it keeps attributes, cannot be the output of a JAX model."""
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), input_shape=(32, 32, 3))
    for model in (backbone, keras_cnv2.fold(backbone)):
        found = keras.Model(model.input, model.pyramid_outputs).predict(np.zeros((1, 32, 32, 3)), verbose=0)
        assert {level: features.shape for level, features in found.items()} == {
            level: (1, side, side, 4) for level, side in (("P2", 8), ("P3", 4), ("P4", 2), ("P5", 1))
        }
