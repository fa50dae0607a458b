"""`keras-cnv2 export`, end to end on a small checkpoint."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_cnv2
from keras_cnv2.commands import export
from keras_cnv2.commands.main import main
from keras_cnv2.restore import restore_model
from tests.detection.samples import tiny
from tests.export.small import NAMES, classifier, encoded, pixels

SIZE = 32


@pytest.fixture(scope="module")
def model():
    return classifier(depths=(1, 1, 1, 1), image_size=SIZE, resize="squash")


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "animals.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def image():
    return keras_cnv2.load_image(encoded(), SIZE, "squash")[None]


@pytest.fixture(scope="module")
def expected(model, image):
    return np.asarray(model(image))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command in a folder of its own; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return main(["export", *map(str, arguments)]), *capsys.readouterr()

    return run


def test_saved_model(run, weights, expected, tmp_path):
    code, out, _ = run(weights, "--to", "saved_model", "--image-size", SIZE, "--top", 2)
    assert (code, out.split(":")[0]) == (0, "animals_saved_model")
    served = tf.saved_model.load(str(tmp_path / "animals_saved_model")).signatures["serve_jpeg"]
    answer = served(encoded=tf.constant([encoded()]))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert answer["classes"].numpy()[0, 0].decode() == NAMES[expected.argmax()]
    code, _, error = run(weights, "--to", "saved_model")
    assert code == 1
    assert "--overwrite replaces it" in error


def test_onnx(run, weights, image, expected, tmp_path):
    import onnxruntime

    (tmp_path / "it.onnx").write_bytes(b"before")
    code, *_ = run(weights, "--to", "onnx", "--out", tmp_path / "it.onnx", "--overwrite")
    assert code == 0
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    (received,) = session.run(None, {"images": image})
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["keras_cnv2"])["resize"] == "squash"


def test_litert(run, weights, image, expected, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    for seed in range(4):
        Image.fromarray(pixels(seed=seed)).save(tmp_path / f"{seed}.png")
    (tmp_path / "animals.tflite").write_bytes(b"before")
    arguments = ["--quantization", "int8", "--representative", tmp_path, "--overwrite"]
    code, _, error = run(weights, "--to", "litert", "--image-size", SIZE, *arguments, "--max-pixels", 99)
    assert (code, "at most 99 pixels" in error) == (1, True)
    code, *_ = run(weights, "--to", "litert", "--image-size", SIZE, *arguments, "--exif-orientation", "false")
    assert code == 0
    received = Interpreter(str(Path("animals.tflite"))).get_signature_runner()(images=image)["probabilities"]
    np.testing.assert_allclose(received, expected, atol=0.05)  # 0.02 apart when this was written
    assert received.argmax() == expected.argmax()


def test_pretrained(run, weights, image, expected, tmp_path):
    code, out, _ = run(weights, "--to", "pretrained", "--layout", "timm", "--licence", "apache-2.0")
    assert (code, out.split(":")[0]) == (0, "animals_pretrained")
    again = restore_model(str(tmp_path / "animals_pretrained" / "model.safetensors"))
    np.testing.assert_allclose(again(image), expected, atol=1e-6)
    assert json.loads((tmp_path / "animals_pretrained" / "config.json").read_text())["architecture"]
    assert "license: apache-2.0" in (tmp_path / "animals_pretrained" / "README.md").read_text()


@pytest.fixture
def written(monkeypatch):
    """Exports write a few bytes in place of a model. A list of the arguments of each."""
    calls = []

    def write(model, path, **options):
        calls.append(options)
        path.write_bytes(b"it" * len(calls))

    monkeypatch.setattr(export, "restore_model", lambda *_, **options: None)
    for kind in export.EXPORTS:
        monkeypatch.setitem(export.EXPORTS, kind, write)
    return calls


@pytest.mark.parametrize("kind", ["saved_model", "litert", "onnx", "pretrained"])
def test_overwrite(run, written, tmp_path, kind):
    arguments = ("m.keras", "--to", kind, "--out", "it")
    assert run(*arguments)[0] == 0
    code, _, error = run(*arguments)
    assert (code, "--overwrite replaces it" in error) == (1, True)
    assert (tmp_path / "it").read_bytes() == b"it"
    assert run(*arguments, "--overwrite")[0] == 0
    assert (tmp_path / "it").read_bytes() == b"itit"
    # Files are replaced without being asked, folders are not.
    assert written == [{}, {} if kind in export.SUFFIXES else {"overwrite": True}]


def test_options_are_those_of_the_functions():
    for kind, function in export.EXPORTS.items():
        parameters = {*inspect.signature(function).parameters}
        if kind == "serving":  # which hands the rest on
            parameters |= {*inspect.signature(keras_cnv2.export_saved_model).parameters}
        options = {name for name, kinds in export.OPTIONS.items() if kind in kinds}
        assert options - parameters <= ({"overwrite"} if kind in export.SUFFIXES else set())


def test_name_of_the_file(run, written, tmp_path):
    for model in ("convnextv2_tiny.fcmae_ft_in1k", "some/where/m.weights.h5", "m.2.safetensors"):
        assert run(model, "--to", "onnx")[0] == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"convnextv2_tiny.fcmae_ft_in1k.onnx", "m.onnx", "m.2.onnx"}


def test_onnx_in_a_folder(run, written, tmp_path):
    command = ("m.keras", "--to", "onnx", "--layout", "transformers", "--opset-version", 17)
    assert run(*command)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m_onnx"]
    assert written == [{"layout": "transformers", "opset_version": 17}]
    (tmp_path / "it" / "onnx").mkdir(parents=True)
    (tmp_path / "it" / "onnx" / "model.onnx").touch()
    code, _, error = run(*command, "--out", "it")
    assert (code, "--overwrite replaces it. Received: it/onnx/model.onnx" in error) == (1, True)


@pytest.mark.slow
def test_serving(run, weights, tmp_path):
    for _ in range(2):
        code, *_ = run(weights, "--to", "serving", "--out", "served", "--name", "animals", "--max-batch-size", 2)
        assert code == 0
    assert sorted(path.name for path in (tmp_path / "served" / "model").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx", "--quantization", "int8"], "--quantization is an option of --to litert. Received: --to onnx"),
        (["--to", "litert", "--layout", "timm"], "--layout is an option of --to onnx and pretrained"),
        (["--to", "litert", "--top", "3"], "--top is an option of --to saved_model and serving"),
        (["--to", "onnx", "--weights", "imagenet"], "--weights is only for a MODEL that is a size"),
        (["--to", "litert", "--quantization", "int8"], "calibrated with images: give --representative"),
        (["--to", "litert", "--representative", "none*"], "No image files found. Received: none*"),
        (["--to", "onnx", "--out", "none/it.onnx"], "There is no such folder"),
    ],
)
def test_errors(run, weights, tmp_path, arguments, message):
    code, out, error = run(weights, *arguments)
    assert (code, out) == (1, "")
    assert message in error
    assert [*tmp_path.iterdir()] == []


def test_size_and_tag(run, written, monkeypatch, tmp_path):
    """A size takes ImageNet's weights; here a stand-in, as they are not to be downloaded."""
    asked = []
    monkeypatch.setattr(export, "restore_model", lambda *names, any_size: asked.append(names))
    assert run("atto", "--to", "onnx")[0] == 0
    assert run("tiny", "--weights", "fcmae_ft_in1k", "--to", "onnx")[0] == 0
    assert asked == [("imagenet", "atto"), ("fcmae_ft_in1k", "tiny")]
    assert {path.name for path in tmp_path.iterdir()} == {"atto.onnx", "tiny.onnx"}


@pytest.mark.slow
def test_detectors(tmp_path, capsys):
    """A SavedModel of theirs has other signatures, and there is nothing else for them."""
    pytest.importorskip("keras_cv")
    tiny().save(tmp_path / "detector.keras")
    command = ["export", str(tmp_path / "detector.keras"), "--image-size", "64", "--out", str(tmp_path / "exported")]
    assert main([*command, "--to", "saved_model", "--resize", "crop"]) == 1
    assert "resize does not apply to detectors" in capsys.readouterr().err
    assert main([*command, "--to", "saved_model", "--top", "3"]) == 1
    assert "--top does not apply to detectors" in capsys.readouterr().err
    assert main([*command, "--to", "saved_model"]) == 0
    assert "boxes" in tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"].structured_outputs
    assert main([*command[:-1], str(tmp_path / "it.tflite"), "--to", "litert"]) == 1
    assert "Detectors can only be exported as SavedModels, serving folders" in capsys.readouterr().err
