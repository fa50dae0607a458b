import json
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import keras_cnv2
from keras_cnv2.errors import ExportError
from keras_cnv2.export.litert import check, convert, deployed_block, export
from keras_cnv2.export.litert.equalize import equalize
from keras_cnv2.export.litert.export import QUANTIZATIONS, export_litert
from keras_cnv2.export.outputs import with_named_outputs
from keras_cnv2.images.normalization import MEAN, STD
from tests.export.litert.litert_files import SIZE, images, run
from tests.export.litert.litert_metadata import metadata
from tests.export.small import NAMES, backbone, classifier, shared_classifier

SHALLOW = {"depths": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def model():
    return classifier(image_size=SIZE, resize="squash", head_init_scale=1.0)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """One file of each kind: `None.tflite`, `float16.tflite` and so on."""
    folder = tmp_path_factory.mktemp("litert")
    for quantization in QUANTIZATIONS:
        representative = images(12, seed=1) if quantization == "int8" else None
        export_litert(model, folder / f"{quantization}.tflite", quantization, representative)
    return folder


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """A backbone for two normalised images at once that are not square, and its file."""
    model = backbone(input_shape=(SIZE, 96, 3), include_preprocessing=False)
    path = tmp_path_factory.mktemp("litert") / "it.tflite"
    export_litert(model, path, batch=2)
    return model, path


def off(received, expected):
    """How far outputs are off, as a share of what tells them apart."""
    return np.std(received - expected) / np.std(expected - expected.mean(-1, keepdims=True))


def operators(path):
    """Pairs of an operation's name and the dtypes of its inputs that are not constant, and of its weights."""
    graph = convert.read(Path(path).read_bytes())
    tensors = graph.subgraphs[0].tensors
    names = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
    for operator in graph.subgraphs[0].operators:
        yield convert.operation(graph, operator), [names[tensors[i].type] for i in operator.inputs[:2]]


class TestOutputs:
    def test_float32(self, folder, model):
        received = run(folder / "None.tflite", images())
        assert {*received} == {"probabilities"}
        assert received["probabilities"].dtype == "float32"
        np.testing.assert_allclose(received["probabilities"], model(images()), atol=1e-5)

    @pytest.mark.parametrize(("quantization", "allowed"), [("float16", 0.01), ("dynamic", 0.1), ("int8", 0.1)])
    def test_quantized(self, folder, model, quantization, allowed):
        received = run(folder / f"{quantization}.tflite", images())["probabilities"]
        assert 1e-7 < off(received, np.asarray(model(images()))) < allowed
        assert received.dtype == "float32"

    def test_backbone(self, normalised):
        model, path = normalised
        batch = images(4, SIZE, 96) / 255
        received = run(path, batch)
        expected = keras.Model(model.input, model.pyramid_outputs)(batch)
        assert {*received} == {"P2", "P3", "P4", "P5"}
        for level, values in received.items():
            np.testing.assert_allclose(values, expected[level], atol=1e-5 * np.abs(expected[level]).max())

    def test_other_models(self, tmp_path):
        """Of logits, `test_reference` exports one."""
        headless = {"include_top": False, "class_names": None, "pooling": "avg"}
        model = classifier(**SHALLOW, **headless, stem_stride=1, input_shape=(None, None, 1))
        (tmp_path / "it.tflite").write_bytes(b"what was there")
        export_litert(model, tmp_path / "it.tflite", image_size=32)
        batch = images(2, 32, 32, model.input_shape[-1])
        expected = np.asarray(model(batch))
        (received,) = run(tmp_path / "it.tflite", batch).values()
        np.testing.assert_allclose(received, expected, atol=1e-5 * max(1, np.abs(expected).max()))

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("probabilities", {}),
            ("probabilities", {"classifier_activation": "sigmoid"}),
            ("logits", {"classifier_activation": None}),
            ("scores", {"classifier_activation": "relu"}),
            ("pooled", {"include_top": False, "class_names": None, "pooling": "max"}),
            ("P5", {"include_top": False, "class_names": None}),
            ("P3", {"include_top": False, "class_names": None, "stem_stride": 1}),
        ],
    )
    def test_names(self, name, arguments):
        assert [*with_named_outputs(classifier(**SHALLOW, **arguments)).output] == [name]

    def test_uint8(self, tmp_path):
        model = classifier(**SHALLOW, image_size=SIZE, head_init_scale=1.0)
        export_litert(model, tmp_path / "it.tflite", "int8", images(6, seed=1), input_dtype="uint8")
        details = Interpreter(str(tmp_path / "it.tflite")).get_input_details()[0]
        assert details["dtype"] == np.uint8
        received = run(tmp_path / "it.tflite", images().clip(0, 255))["probabilities"]
        assert off(received, np.asarray(model(images().clip(0, 255)))) < 0.1

    def test_deployable(self):
        """Where the mean of the channels is a hundred times their deviation, and on maps smaller than the kernel."""
        model = classifier()
        model.get_layer("stages_2_0").norm.epsilon, model.get_layer("stages_2_0").grn.epsilon = 0.5, 2.0
        model.get_layer("stages_1_0").dwconv.bias.assign(np.full(16, 100.0))
        keras.config.set_dtype_policy("mixed_bfloat16")  # which is not that of the model
        try:
            deployed = deployed_block.deployable(with_named_outputs(model))
        finally:
            keras.config.set_dtype_policy("float32")
        for size in (32, 80):
            batch = images(2, size, size)
            np.testing.assert_allclose(deployed(batch)["probabilities"], model(batch), atol=1e-5)

    def test_equalized(self):
        """The outputs stay, and every channel weighs as much before the convolution as within it."""
        model = classifier()
        block = model.get_layer("stages_2_0")
        block.grn.gamma.assign(block.grn.gamma * np.where(np.arange(96) < 2, 30, 1))
        deployed = deployed_block.deployable(model)
        block = deployed.get_layer("stages_2_0")
        before = keras.Model(deployed.input, block.input)(images())

        def spread():
            peaks = np.abs(block.wide(before)).max((0, 1, 2))
            reach = np.abs(block.pwconv2.get_weights()[0]).max((0, 1, 3))
            return np.std(np.log(peaks / reach))

        assert spread() > 0.5
        equalize(deployed, [images()[:2], images()[2:]])
        assert spread() < 1e-3
        np.testing.assert_allclose(deployed(images()), model(images()), atol=1e-5)


class TestFile:
    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_xnnpack_takes_it_whole(self, folder, quantization):
        interpreter = Interpreter(str(folder / f"{quantization}.tflite"))
        interpreter.allocate_tensors()
        assert [op["op_name"] for op in interpreter._get_ops_details()].count("DELEGATE") == 1

    def test_what_is_int8(self, folder):
        first, *convolutions = [dtypes for name, dtypes in operators(folder / "int8.tflite") if name == "CONV_2D"]
        assert first == ["FLOAT32", "FLOAT32"]
        assert len(convolutions) == 2 * 5 + 3
        assert all(dtypes == ["INT8", "INT8"] for dtypes in convolutions)
        others = dict(operators(folder / "int8.tflite"))
        for name in ("GELU", "SUM", "MEAN", "RSQRT", "DIV", "SOFTMAX"):
            assert others[name][0] == "FLOAT32"
        assert others["DEPTHWISE_CONV_2D"] == ["INT8", "INT8"]
        assert others["FULLY_CONNECTED"] == ["FLOAT32", "INT8"]

    def test_what_is_dynamic(self, folder):
        for name, dtypes in operators(folder / "dynamic.tflite"):
            weights = "INT8" if name in ("CONV_2D", "FULLY_CONNECTED") else "FLOAT32"
            assert dtypes[0] == "FLOAT32"
            assert name not in ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D") or dtypes[1] == weights

    def test_weights_that_are_shared(self, folder):
        """The converter keeps equal values once."""
        graph = convert.read((folder / "None.tflite").read_bytes())
        weights = [
            graph.subgraphs[0].tensors[operator.inputs[1]]
            for operator in graph.subgraphs[0].operators
            if convert.operation(graph, operator) == "CONV_2D"
        ]
        first, second = (tensor for tensor in weights if tensor.shape.tolist() == [96, 1, 1, 24])
        values = graph.buffers[first.buffer].data.view("float32").reshape(96, 24)
        graph.buffers[second.buffer].data = None
        second.buffer = first.buffer
        content = convert.with_int8_weights(convert.write(graph), ("CONV_2D",))
        graph = convert.read(content)
        both = [t for t in graph.subgraphs[0].tensors if t.name in (first.name, second.name)]
        for tensor in both:
            quantized = graph.buffers[tensor.buffer].data.view("int8").reshape(96, 24)
            scales = tensor.quantization.scale[:, None]
            assert (np.abs(quantized * scales - values) <= 0.51 * scales).all()
        assert len(both) == 2
        assert len(content) < 0.7 * (folder / "None.tflite").stat().st_size

    def test_labels_and_details(self, folder):
        with zipfile.ZipFile(folder / "int8.tflite") as archive:
            assert archive.read("labels.txt").decode().splitlines() == [*NAMES]
            assert json.loads(archive.read("keras_cnv2.json")) == {
                "image_size": [SIZE, SIZE],
                "resize": "squash",
                "channels": 3,
                "mean": [0, 0, 0],
                "std": [1, 1, 1],
                "include_preprocessing": True,
                "quantization": "int8",
            }

    def test_metadata(self, folder):
        image, output = metadata(folder / "None.tflite")
        assert image == {"name": "images", "mean": [0], "std": [1], "max": [255], "min": [0], "size": (SIZE, SIZE)}
        assert output == {"name": "probabilities", "files": [("labels.txt", 2)]}  # TENSOR_AXIS_LABELS

    def test_metadata_of_normalised_images(self, normalised):
        _, path = normalised
        image, *outputs = metadata(path)
        assert image["size"] == (96, SIZE)
        np.testing.assert_allclose(image["mean"], 255 * np.array(MEAN), rtol=1e-6)
        np.testing.assert_allclose(image["std"], 255 * np.array(STD), rtol=1e-6)
        np.testing.assert_allclose(image["max"], (1 - np.array(MEAN)) / STD, rtol=1e-6)
        details = Interpreter(str(path)).get_output_details()
        sides = {"P2": 16, "P3": 8, "P4": 4, "P5": 2}
        assert [sides[output["name"]] for output in outputs] == [detail["shape"][1] for detail in details]
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ["keras_cnv2.json"]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"path": "it.lite"}, "ends in .tflite"),
            ({"quantization": "int4"}, "quantization must be one of"),
            ({"quantization": "int8"}, "needs `representative`"),
            ({"representative": images(1)}, "must not be given.*a ndarray"),
            ({"image_size": 16}, "an int of at least 32"),
            ({"batch": 0}, "batch must be a positive int"),
            ({"input_dtype": "int8"}, "input_dtype must be one of"),
        ],
    )
    def test_arguments(self, model, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            export_litert(model, **{**arguments, "path": tmp_path / arguments.get("path", "it.tflite")})
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: keras_cnv2.FCMAE(backbone(), image_size=64, decoder_dim=8), "`fcmae.backbone`"),
            (lambda: keras.Sequential([keras.layers.Dense(2)]), "must be a ConvNeXtV2"),
            (lambda: shared_classifier(dtype="mixed_bfloat16"), "in float32.*layers in bfloat16"),
        ],
    )
    def test_models(self, tmp_path, make, message):
        with pytest.raises(ValueError, match=message):
            export_litert(make(), tmp_path / "it.tflite")

    def test_quantized_model(self, tmp_path):
        model = classifier(**SHALLOW, input_shape=(32, 32, 3))
        model.get_layer("stages_0_0").pwconv1.quantize("int8")
        with pytest.raises(ValueError, match="do not take quantized models"):
            export_litert(model, tmp_path / "it.tflite")

    def test_image_size_that_the_model_forbids(self, tmp_path):
        with pytest.raises(ValueError, match="Received: image_size=96"):
            export_litert(shared_classifier(input_shape=(64, 64, 3)), tmp_path / "it.tflite", image_size=96)

    def test_uint8_of_normalised_images(self, tmp_path):
        with pytest.raises(ValueError, match="take normalised images"):
            export_litert(shared_classifier(include_preprocessing=False), tmp_path / "it.tflite", input_dtype="uint8")

    def test_backend(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
            export_litert(model, tmp_path / "it.tflite")

    def test_no_litert(self, model, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(ExportError, match=r"keras_cnv2\[litert\]"):
            export_litert(model, tmp_path / "it.tflite")

    def test_too_large(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(type(model), "count_params", lambda self: 660_289_640)
        with pytest.raises(ValueError, match="less than 2 GB.*660,289,640"):
            export_litert(model, tmp_path / "it.tflite")

    def test_names_of_several_lines(self, tmp_path):
        model = classifier(**SHALLOW, class_names=["a\nb", "c", "d", "e", "f"], input_shape=(32, 32, 3))
        with pytest.raises(ValueError, match="one line each"):
            export_litert(model, tmp_path / "it.tflite")
        assert not [*tmp_path.iterdir()]


@keras.saving.register_keras_serializable("tests")
def erf(x):
    """No builtin operation of LiteRT, but for GELU."""
    return keras.ops.erf(x)


class TestWrongArtefacts:
    @pytest.mark.parametrize("quantization", [None, "dynamic"])
    def test_other_values(self, tmp_path, monkeypatch, quantization):
        """What was there stays."""
        (tmp_path / "it.tflite").write_text("before")
        model, other = (classifier(**SHALLOW, input_shape=(32, 32, 3), head_init_scale=1.0) for _ in range(2))
        other.get_layer("stages_2_0").grn.gamma.assign(np.full(96, 3.0))
        right = deployed_block.deployable
        broken = {"probabilities": other.output}
        monkeypatch.setattr(export, "deployable", lambda _: right(keras.Model(other.input, broken)))
        with pytest.raises(ExportError, match="probabilities: .* not the model's"):
            export_litert(model, tmp_path / "it.tflite", quantization)
        assert [path.name for path in tmp_path.iterdir()] == ["it.tflite"]
        assert (tmp_path / "it.tflite").read_text() == "before"

    @pytest.mark.parametrize("received", [np.full((1, 5), 0.2), np.full((1, 5), np.nan)])
    def test_quantized_too_coarsely(self, received):
        with pytest.raises(ExportError, match="int8.* off by"):
            check.compare_quantized("logits", received, np.eye(5)[:1], "int8")
        with pytest.raises(ExportError, match="int8.* off by"):  # a mean of 9 does not make the error small
            check.compare_quantized("logits", received + 9, np.eye(5)[:1] + 9, "int8")

    def test_operations_of_tensorflow(self, tmp_path):
        model = classifier(**SHALLOW, classifier_activation=erf, input_shape=(32, 32, 3))
        with pytest.raises(ExportError, match="Erf"):
            export_litert(model, tmp_path / "it.tflite")
        assert not [*tmp_path.iterdir()]

    def test_custom_operations(self, folder):
        graph = convert.read((folder / "None.tflite").read_bytes())
        code = next(code for code in graph.operatorCodes if code.builtinCode == schema.BuiltinOperator.GELU)
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"FlexErf"
        with pytest.raises(ExportError, match="FlexErf"):
            check.check_operations(convert.write(graph))

    def test_no_file(self):
        with pytest.raises(ExportError, match="cannot run"):
            check.runner(b"TFL3" * 10)
