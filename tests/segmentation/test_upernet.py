import inspect
import math
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.segmentation import ConfusionMatrix, PixelCrossentropy, Segmenter, UPerNet
from keras_cnv2.segmentation.resample import BinPooling, ResizeLike
from tests.outputs import outputs
from tests.segmentation.small import CLASSES, backbone, images, labels, numpy, upernet


class TestReference:
    """The same weights in the UPerNet of the transformers library, an implementation that is not ours."""

    # Ours -> theirs.
    HEAD = {
        **{f"pool_{scale}": f"decode_head.psp_modules.{i}.1" for i, scale in enumerate((1, 2, 3, 6))},
        "bottleneck": "decode_head.bottleneck",
        **{f"lateral_{i}": f"decode_head.lateral_convs.{i}" for i in range(3)},
        **{f"pyramid_{i}": f"decode_head.fpn_convs.{i}" for i in range(3)},
        "fusion": "decode_head.fpn_bottleneck",
        "auxiliary": "auxiliary_head.convs.0",
    }
    NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

    def theirs(self, model, torch):
        transformers = pytest.importorskip("transformers")
        stages = [f"stage{number}" for number in range(1, 5)]
        config = transformers.ConvNextV2Config(
            depths=[*model.backbone.depths], hidden_sizes=[*model.backbone.dims], out_features=stages
        )
        config = transformers.UperNetConfig(
            backbone_config=config,
            hidden_size=model.width,
            num_labels=model.classes,
            auxiliary_channels=model.auxiliary_width,
            auxiliary_in_channels=model.backbone.dims[2],
        )
        theirs = transformers.UperNetForSemanticSegmentation(config).eval()
        weights = {f"backbone.{k}": v for k, v in keras_cnv2.state_dict(model.backbone, "transformers").items()}
        for ours, name in self.HEAD.items():
            weights[f"{name}.conv.weight"] = numpy(model.get_layer(f"{ours}_conv").kernel).transpose(3, 2, 0, 1)
            for variable, theirs_too in self.NORM.items():
                values = numpy(getattr(model.get_layer(f"{ours}_norm"), variable))
                weights[f"{name}.batch_norm.{theirs_too}"] = values
        for ours, name in (("classifier", "decode_head"), ("auxiliary_classifier", "auxiliary_head")):
            kernel, bias = model.get_layer(ours).get_weights()
            weights |= {f"{name}.classifier.weight": kernel.transpose(3, 2, 0, 1), f"{name}.classifier.bias": bias}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()}
        missing, unexpected = theirs.load_state_dict(tensors, strict=False)
        assert not unexpected
        assert all(name.endswith("num_batches_tracked") for name in missing)
        return theirs

    @pytest.mark.slow  # to import both libraries
    @pytest.mark.parametrize("size", [(96, 160), (75, 101)])  # the second: feature maps with odd sides
    def test_logits(self, size):
        torch = pytest.importorskip("torch")
        model = upernet(body=backbone(include_preprocessing=False))
        batch = np.random.default_rng(2).normal(0, 1, (2, *size, 3)).astype("float32")
        ours = keras.Model(model.input, model.output)(batch)
        found = {}
        theirs = self.theirs(model, torch)
        theirs.auxiliary_head.register_forward_hook(lambda *arguments: found.update(auxiliary=arguments[-1]))
        with torch.no_grad():
            found["logits"] = theirs(torch.from_numpy(batch.transpose(0, 3, 1, 2))).logits
            found["auxiliary"] = torch.nn.functional.interpolate(found["auxiliary"], size=size, mode="bilinear")
        for head, expected in found.items():
            expected = expected.numpy().transpose(0, 2, 3, 1)
            assert np.abs(expected).max() > 0.1
            np.testing.assert_allclose(numpy(ours[head]), expected, atol=1e-4)
        np.testing.assert_array_equal(numpy(model(batch)), numpy(ours["logits"]))


class TestResampling:
    @pytest.mark.backends
    @pytest.mark.parametrize("bins", [1, 2, 3, 6])
    @pytest.mark.parametrize("size", [(6, 12), (5, 7), (2, 1)])
    def test_bins(self, bins, size):
        x = np.random.default_rng(0).normal(0, 1, (2, *size, 3)).astype("float32")

        def part(side, number):
            return slice(math.floor(number * side / bins), math.ceil((number + 1) * side / bins))

        expected = [[x[:, part(size[0], i), part(size[1], j)].mean((1, 2)) for j in range(bins)] for i in range(bins)]
        np.testing.assert_allclose(numpy(BinPooling(bins)(x)), np.transpose(expected, (2, 0, 1, 3)), atol=1e-6)

    @pytest.mark.backends
    @pytest.mark.parametrize(("size", "target"), [((3, 5), (11, 9)), ((1, 2), (4, 4)), ((4, 4), (4, 4))])
    def test_resize(self, size, target):
        x = np.random.default_rng(0).normal(0, 1, (2, *size, 3)).astype("float32")

        def weights(side, wanted):
            """Rows of the linear interpolation's matrix."""
            at = np.clip((np.arange(wanted) + 0.5) * side / wanted - 0.5, 0, side - 1)
            return np.maximum(1 - np.abs(at[:, None] - np.arange(side)), 0)

        expected = np.einsum("ih,jw,nhwc->nijc", weights(size[0], target[0]), weights(size[1], target[1]), x)
        resized = ResizeLike()(x, np.zeros((2, *target, 1), "uint8"))
        np.testing.assert_allclose(numpy(resized), expected, atol=1e-5)

    def test_sizes_that_a_graph_computes(self):
        tf = pytest.importorskip("tensorflow")
        model, batch = upernet(), images()
        free = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, None, None, 3))])
        np.testing.assert_allclose(free(batch), numpy(model(batch)), atol=1e-5)


class TestModel:
    @pytest.fixture(scope="class")
    def body(self):
        return backbone()

    @pytest.mark.backends
    def test_outputs(self):
        model = upernet(values=False)
        logits = outputs(model, images())
        assert logits.shape == (2, 65, 76, CLASSES)
        assert logits.dtype == "float32"
        both = model(keras.Input((65, 76, 3), batch_size=2), training=True)
        assert {name: tuple(x.shape) for name, x in both.items()} == dict.fromkeys(
            ("logits", "auxiliary"), (2, 65, 76, CLASSES)
        )
        assert tuple(model(keras.Input((64, 96, 3))).shape) == (None, 64, 96, CLASSES)
        assert model.compute_output_shape((2, 64, 96, 3)) == (2, 64, 96, CLASSES)
        # Not of trained values yet: classifiers start small, and with no bias.
        assert np.abs(logits).max() < 1

    @pytest.mark.backends
    def test_keras_file(self, tmp_path):
        model = upernet(class_names=[*"abcde"])
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        expected = outputs(model, images())
        np.testing.assert_array_equal(outputs(again, images()), expected)
        assert again.class_names == (*"abcde",)
        assert [w.path for w in again.weights] == [w.path for w in model.weights]
        model.save_weights(tmp_path / "model.weights.h5")
        fresh = upernet(values=False)
        fresh.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(outputs(fresh, images()), expected)

    def test_config_holds_every_argument(self):
        given = {
            "classes": 3,
            "width": 7,
            "auxiliary_width": 5,
            "pool_scales": (1, 4),
            "dropout": 0.3,
            "auxiliary_weight": 0.2,
            "class_names": ("a", "b", "c"),
            "dtype": "mixed_bfloat16",
            "name": "mine",
        }
        assert {*inspect.signature(UPerNet).parameters} == {"backbone", *given}
        config = UPerNet(backbone(), **given).get_config()
        again = UPerNet.from_config(config)
        assert again.get_config() == config
        assert again.backbone.get_config() == UPerNet.from_config(config).backbone.get_config()
        assert {**config, "dtype": "mixed_bfloat16"}.items() >= given.items()

    def test_mixed_precision(self):
        model = upernet(body=backbone(dtype="mixed_bfloat16"), values=False)
        assert model.get_layer("fusion_conv").compute_dtype == "bfloat16"
        model.compile("sgd", PixelCrossentropy(), run_eagerly=keras.backend.backend() == "tensorflow")
        loss = model.train_on_batch(images(), labels())
        assert np.isfinite(loss)
        assert keras.backend.standardize_dtype(model(images()).dtype) == "float32"

    def test_layers_are_the_backbones(self):
        model = upernet()
        model.backbone.trainable = False
        assert {v.path.split("/")[0] for v in model.trainable_variables}.isdisjoint(
            layer.name for layer in model.backbone.layers
        )
        assert len(model.weights) == len({id(w) for w in model.weights})

    def test_what_is_frozen_stays_so(self):
        model = upernet(values=False)
        model.backbone.trainable = False
        again = UPerNet.from_config(model.get_config())
        assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables] != []
        model.trainable = False
        assert UPerNet.from_config(model.get_config()).trainable_variables == []

    def test_folds(self):
        model = upernet(body=backbone(include_preprocessing=False), class_names=[*"abcde"])
        folded = keras_cnv2.fold(model)
        np.testing.assert_allclose(numpy(folded(images())), numpy(model(images())), atol=1e-4)
        assert not any("auxiliary" in layer.name for layer in folded.layers)
        assert folded.class_names == (*"abcde",)
        segmenters = [Segmenter(m, window=80) for m in (folded, model)]  # larger than the images
        assert [segmenter.fill for segmenter in segmenters] == [0, 0]
        likely, expected = (numpy(segmenter.probabilities(images(1))) for segmenter in segmenters)
        np.testing.assert_allclose(likely, expected, atol=1e-4)

    def test_folds_within_another_model(self):
        model = upernet()
        outer = keras.Sequential([keras.Input((64, 96, 3)), model, keras.layers.Softmax()])
        x = images(1, 64, 96)
        np.testing.assert_allclose(numpy(keras_cnv2.fold(outer)(x)), numpy(outer(x)), atol=1e-4)

    @pytest.mark.parametrize("attribute", ["pyramid_outputs", "pyramid_level_inputs"])
    def test_other_backbones(self, attribute):
        x = images_in = keras.Input((None, None, 3))
        levels = {}
        for number in range(1, 6):
            x = keras.layers.Conv2D(4 + number, 2, strides=2, name=f"level_{number}")(x)
            levels[f"P{number}"] = x
        other = keras.Model(images_in, x)
        names = {level: f"level_{level[1]}" for level in levels}
        setattr(other, attribute, levels if attribute == "pyramid_outputs" else names)
        model = UPerNet(other, 3, width=4, auxiliary_width=4)
        assert model(images()).shape == (2, 65, 76, 3)
        assert model.get_layer("lateral_0_conv").input is levels["P2"]
        assert model.get_layer("auxiliary_conv").input is levels["P4"]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"classes": 0},
            {"width": 1.5},
            {"auxiliary_width": None},
            {"pool_scales": (1, 0)},
            {"pool_scales": (2, 2)},
            {"dropout": 1},
            {"auxiliary_weight": -1},
            {"class_names": ["one"]},
            {"backbone": keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])},
        ],
    )
    def test_impossible_arguments(self, arguments, body):
        with pytest.raises(ValueError, match="Received: "):
            UPerNet(**{"backbone": body, "classes": 3, **arguments})


class TestTraining:
    @pytest.mark.backends
    def test_loss_is_of_both_heads(self):
        body = backbone()
        body.get_layer("stem_conv").kernel.regularizer = keras.regularizers.L2(0.1)
        model = upernet(body=body, dropout=0.0, auxiliary_weight=0.3)
        # Frozen, batch normalisation has known statistics in training too.
        for layer in model.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        # Eager steps save the time to trace them; tests/segmentation/replicas.py has graphs.
        eager = keras.backend.backend() == "tensorflow"
        model.compile("sgd", PixelCrossentropy(), metrics=[ConfusionMatrix(CLASSES)], run_eagerly=eager)
        weights = np.array([1, 0.5], "float32")
        both = {name: numpy(x).astype("float64") for name, x in model(images(), training=True).items()}

        def loss(logits):
            likelihood = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            y = labels()
            per_pixel = -np.take_along_axis(likelihood, np.where(y == 255, 0, y)[..., None], -1)[..., 0] * (y != 255)
            return (per_pixel.mean((1, 2)) * weights).mean()

        decay = 0.1 * (numpy(model.get_layer("stem_conv").kernel) ** 2).sum()
        expected = loss(both["logits"]) + 0.3 * loss(both["auxiliary"]) + decay
        args = (images(), labels()), {"batch_size": 2, "verbose": 0, "sample_weight": weights}
        tested = model.evaluate(*args[0], **args[1], return_dict=True)
        np.testing.assert_allclose(tested["loss"], loss(numpy(model(images()))) + decay, rtol=1e-4)
        metric = ConfusionMatrix(CLASSES)
        metric.update_state(labels(), model(images()))
        np.testing.assert_allclose(tested["mean_iou"], metric.scores()["mean_iou"], rtol=1e-4)
        history = model.fit(*args[0], **args[1]).history
        np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("classes", [1, 2])
    def test_learns(self, classes):
        """Which half of the picture is bright, from a few steps; with one class, that it is bright."""
        x = np.zeros((4, 32, 32, 3), "float32")
        x[:, :, 16:] = 255
        x[2:] = x[2:, :, ::-1]
        y = (x[..., 0] > 0).astype("int32")
        model = upernet(body=backbone(depths=(1, 1, 1, 1)), values=False, classes=classes, dropout=0.0)
        model.compile(keras_cnv2.LayerDecayAdamW(0.01), PixelCrossentropy(), jit_compile=False)
        history = model.fit(x, y, epochs=40, batch_size=4, verbose=0).history
        assert history["loss"][-1] < 0.5 * history["loss"][0]
        assert model.predict(x, verbose=0).shape == (4, 32, 32, classes)

    @pytest.mark.slow
    def test_replicas(self):
        """Two CPU devices: losses, gradients and statistics are those of one."""
        code = "from tests.segmentation.replicas import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]


def multiply_accumulates(model):
    """Of one image, from the shapes of a functional model's layers."""

    def of(layer, shape):
        positions = math.prod(shape[1:3])
        if isinstance(layer, keras_cnv2.ConvNeXtV2Block):
            return positions * (49 * layer.dim + 8 * layer.dim**2)
        return positions * math.prod(layer.kernel.shape) if isinstance(layer, keras.layers.Conv2D) else 0

    return sum(of(layer, layer.output.shape) for layer in model.layers if layer.weights)


def test_batch_normalization_is_that_of_pytorch():
    norms = [layer for layer in upernet().layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}


@pytest.mark.slow
def test_size_is_the_papers():
    """UPerNet on Base: 122 M parameters, with the auxiliary head's, and 1170 G multiply-accumulates at 512 x 2048."""
    model = UPerNet(backbone(size="base", depths=None, dims=None, input_shape=(512, 2048, 3)), 150)
    trained = sum(math.prod(v.shape) for v in model.trainable_variables)
    assert trained == pytest.approx(122e6, rel=0.01)
    assert multiply_accumulates(model) == pytest.approx(1170e9, rel=0.01)
