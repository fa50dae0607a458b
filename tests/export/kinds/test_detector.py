import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_cnv2
from benchmarks.serving_server import ModelServer
from benchmarks.serving_session import SavedModelSession
from keras_cnv2 import export_saved_model, export_serving
from keras_cnv2.detection import Detector, fit_picture, paste_masks
from keras_cnv2.export.check import TOLERANCE
from keras_cnv2.export.kinds.kind import kind_for
from keras_cnv2.export.options import Options
from keras_cnv2.export.saved_model.check import HALF_TOLERANCE, ServedFile, check_saved_model
from tests.detection.samples import images, noisy, numpy_of, tiny, tiny_mask_rcnn
from tests.export.serving.serving_folder import warmup_records

pytestmark = pytest.mark.slow

NAMES = ["cat", "dog", "cow"]


def detector(kind="retinanet", seed=0):
    if kind == "retinanet":
        pytest.importorskip("keras_cv")
        return Detector(noisy(tiny(class_names=NAMES), spread=3, seed=seed), max_detections=6)
    return Detector(tiny_mask_rcnn(class_names=NAMES, masks=kind == "mask_rcnn", weights=seed), max_detections=6)


def check_export(path, model, image_size, class_names):
    options = Options(image_size=image_size, class_names=class_names)
    check_saved_model(path, kind_for(model)(model, options))


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A Mask R-CNN, and its serving folder."""
    pytest.importorskip("tensorflow_serving")
    model, path = detector("mask_rcnn"), tmp_path_factory.mktemp("export") / "serving"
    export_serving(model, path, max_batch_size=2, image_size=64)
    return model, path


@pytest.fixture(scope="module", params=["retinanet", "mask_rcnn"])
def exported(request, tmp_path_factory):
    # Grappler would take most of the time: of the signatures that the tests call, it optimizes the graphs anyway.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if request.param == "mask_rcnn":
        model, folder = request.getfixturevalue("serving")
        path = folder / "model" / "1"
    else:
        model, path = detector(), tmp_path_factory.mktemp("export") / "detector"
        export_saved_model(model, path, image_size=64)
    return model, path, tf.saved_model.load(str(path)).signatures


def test_detections_are_the_model_s(exported):
    model, path, signatures = exported
    signature = "image_masks" if model.has_masks else "serving_default"
    assert {*signatures} == {"serving_default", "dense", "serve_jpeg"} | (
        {"image_masks", "jpeg_masks"} if model.has_masks else set()
    )
    found, expected = numpy_of(signatures[signature](images=images(3))), numpy_of(model(images(3)))
    assert (expected["count"] > 2).all()
    np.testing.assert_array_equal(found["class_ids"], expected["classes"])
    np.testing.assert_array_equal(found["count"], expected["count"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-4)
    for ids, names in zip(found["class_ids"], found["classes"]):
        assert [name.decode() for name in names] == [NAMES[number] if number >= 0 else "" for number in ids]
    assert (path / "assets" / "labels.txt").read_text().split() == NAMES
    assert json.loads((path / "assets.extra" / "keras_cnv2.json").read_text()) == {
        "class_names": NAMES,
        "image_size": 64,
        "channels": 3,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "score_threshold": 0.05,
        **({"mask_threshold": 0.5} if model.has_masks else {}),
    }
    if model.has_masks:
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-4)
        probabilities = numpy_of(paste_masks(expected["masks"], expected["boxes"], 64, 64))
        is_clear = abs(probabilities - 0.5) > 1e-2
        np.testing.assert_array_equal(found["image_masks"][is_clear], (probabilities >= 0.5)[is_clear])
        assert found["image_masks"].any(axis=(2, 3)).sum() > 9


def test_dense_is_all_there_is(exported):
    model, _, signatures = exported
    predictions = model.model(images(1))
    expected, found = numpy_of(model.dense(predictions, (1, 64, 64, 3))), signatures["dense"](images=images(1))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3)
    if model.has_masks:
        np.testing.assert_allclose(found["objectness"], tf.concat(predictions["objectness"], 1), atol=1e-3)
        np.testing.assert_allclose(found["proposals"], predictions["boxes"], atol=1e-2)
        assert found["boxes"].shape == (1, 20, 3, 4)
    else:
        assert found["boxes"].shape == (1, 9 * (64 + 16 + 4 + 1 + 1), 4)
        np.testing.assert_allclose(found["scores"], tf.sigmoid(predictions["classification"]), rtol=1e-3)


def test_boxes_are_in_the_picture_s_pixels(exported):
    model, _, signatures = exported
    pixels = np.random.default_rng(0).integers(0, 256, (60, 160, 3)).astype("uint8")
    encoded = [tf.io.encode_png(pixels).numpy(), b"no picture", tf.io.encode_png(pixels[:, :32]).numpy()]
    found = numpy_of(signatures["jpeg_masks" if model.has_masks else "serve_jpeg"](encoded=tf.constant(encoded)))
    np.testing.assert_array_equal(found["decoded"], [True, False, True])
    assert (found["classes"][1] == b"").all()
    assert found["count"][1] == 0
    assert (found["boxes"][1] == -1).all()
    for place, picture in ((0, pixels), (2, pixels[:, :32])):
        height, width, _ = picture.shape
        image, _ = fit_picture(picture, 64)
        expected = numpy_of(model(image[None]))
        count = expected["count"][0]
        assert found["count"][place] == count > 0
        boxes = expected["boxes"][0, :count] * max(height, width) / 64
        boxes = np.clip(boxes, 0, [width, height, width, height])
        np.testing.assert_allclose(found["boxes"][place, :count], boxes, rtol=1e-3, atol=2e-2)
        assert (found["boxes"][place, count:] == -1).all()
        np.testing.assert_array_equal(found["class_ids"][place], expected["classes"][0])
        if model.has_masks:
            assert_masks_in_picture(model, image, found["masks"][place], found["image_masks"][place], picture.shape)


def assert_masks_in_picture(model, image, masks, pasted, shape):
    """Those of boxes that are cut at the border of the picture, in the square image."""
    expected, predictions = model(image[None]), model.model(image[None])
    height, width = (side * 64 / max(shape) for side in shape[:2])
    boxes = np.clip(expected["boxes"], 0, np.float32([width, height, width, height]))
    masks_of_boxes = numpy_of(model.with_masks(predictions, {**expected, "boxes": boxes})["masks"])
    np.testing.assert_allclose(masks, masks_of_boxes[0], atol=1e-3)
    probabilities = numpy_of(paste_masks(masks_of_boxes, boxes, 64, 64))[0]
    is_clear = abs(probabilities - 0.5) > 1e-2
    np.testing.assert_array_equal(pasted[is_clear], (probabilities >= 0.5)[is_clear])
    assert pasted.any()


def test_what_is_exported_is_checked(exported):
    model, path, _ = exported
    other = detector("mask_rcnn" if model.has_masks else "retinanet", seed=1)
    with pytest.raises(keras_cnv2.ExportError, match="dense, .*the export's values are not the model's"):
        check_export(path, other, 64, NAMES)


@pytest.mark.parametrize("exported", ["retinanet"], indirect=True)
def test_exported_names_are_checked(exported):
    model, path, _ = exported
    with pytest.raises(keras_cnv2.ExportError, match="serving_default: the classes are not the model's"):
        check_export(path, model, 64, ["cat", "cow", "dog"])


def test_uint8_and_no_names(tmp_path):
    pytest.importorskip("keras_cv")
    model = tiny(input_shape=(64, 64, 3))
    export_saved_model(model, tmp_path / "detector", input_dtype="uint8", fold=False)
    assert (tmp_path / "detector" / "assets" / "labels.txt").read_text().splitlines() == [
        "class 0",
        "class 1",
        "class 2",
    ]
    signature = tf.saved_model.load(str(tmp_path / "detector")).signatures["serving_default"]
    assert signature(images=tf.zeros((1, 64, 64, 3), tf.uint8))["boxes"].shape == (1, 100, 4)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "mask_rcnn"])
def test_wrong_arguments_are_named(tmp_path, kind):
    model = detector(kind)
    with pytest.raises(ValueError, match="image_size must be a multiple of 32.*Received: image_size=None"):
        export_saved_model(model, tmp_path / "detector")
    with pytest.raises(ValueError, match="image_size must be a multiple of 32.*Received: image_size=65"):
        export_saved_model(model, tmp_path / "detector", image_size=65)
    with pytest.raises(ValueError, match="input_dtype must be one of"):
        export_saved_model(model, tmp_path / "detector", image_size=64, input_dtype="int8")
    with pytest.raises(ValueError, match="max_pixels must be at least 16384"):
        export_saved_model(model, tmp_path / "detector", image_size=64, max_pixels=100)
    with pytest.raises(ValueError, match="resize does not apply to detectors"):
        export_saved_model(model, tmp_path / "detector", image_size=64, resize="crop")
    with pytest.raises(ValueError, match="class_names must be 3 names, one per class. Received: 2 names"):
        export_saved_model(model, tmp_path / "detector", image_size=64, class_names=["a", "b"])
    model.model.class_names = ("cat", "dog", "co\nw")
    with pytest.raises(ValueError, match="one line each"):
        export_saved_model(model, tmp_path / "detector", image_size=64)
    assert [*tmp_path.iterdir()] == []


def functions_of(model):
    kind = kind_for(model)(model, Options(image_size=64))
    names = tf.lookup.KeyValueTensorInitializer(tf.range(3, dtype=tf.int64), kind.labels)
    return kind, kind.functions(tf.lookup.StaticHashTable(names, ""))


def test_faster_rcnn_has_no_masks():
    model = detector("faster_rcnn")
    _, functions = functions_of(model)
    assert {*functions} == {"serving_default", "dense", "serve_jpeg"}
    serve, _ = functions["serving_default"]
    found, expected = serve(images(2)), model(images(2))
    assert {*found} == {"boxes", "classes", "class_ids", "scores", "count"}
    np.testing.assert_array_equal(found["class_ids"], expected["classes"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)


def test_wrong_masks_are_seen():
    """One pixel that does not follow from the mask, and a mask that is not the model's."""
    model = detector("mask_rcnn")
    kind, functions = functions_of(model)
    received = functions["image_masks"][0](images(1))
    kind._check_pasted("image_masks", received, received["boxes"])
    wrong = received["image_masks"].numpy()
    wrong[0, 2, 0, 0] ^= True
    with pytest.raises(keras_cnv2.ExportError, match="image_masks, image_masks: the export's values"):
        kind._check_pasted("image_masks", {**received, "image_masks": tf.constant(wrong)}, received["boxes"])


def test_masks_of_half_precision_are_compared_as_logits():
    """Rounding logits by a part of the largest one changes probabilities near 0.5 by more than this part."""
    model = detector("mask_rcnn")
    kernel = model.model.mask_head.logits.kernel
    kernel.assign(kernel * 20)
    kind, functions = functions_of(model)
    outputs = {name: functions[name][0](images(1)) for name in ("dense", "serving_default")}
    masks = np.clip(outputs["serving_default"]["masks"], 1e-6, 1 - 1e-6)
    logits = np.log(masks / (1 - masks))

    def check(shift, tolerance):
        shifted = 1 / (1 + np.exp(-logits - shift * np.abs(logits).max()))
        served = outputs | {"serving_default": outputs["serving_default"] | {"masks": shifted}}
        kind.check(ServedFile(served, tolerance), images(1))
        return np.abs(shifted - masks).max()

    assert check(0.04, HALF_TOLERANCE) > HALF_TOLERANCE
    for shift, tolerance in ((0.06, HALF_TOLERANCE), (1e-3, TOLERANCE)):
        with pytest.raises(keras_cnv2.ExportError, match="serving_default, masks: the export's values"):
            check(shift, tolerance)


def test_serving(serving, tmp_path):
    """In TensorFlow's C++ runtime, asked by the client in the folder."""
    model, folder = serving
    version = folder / "model" / "1"
    session = SavedModelSession(version)
    signatures = {}
    for request in warmup_records(version):
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        signatures.setdefault(request.model_spec.signature_name, []).append([*map(len, inputs.values())])
        if request.model_spec.signature_name == "image_masks":
            assert session.run("image_masks", inputs)["image_masks"].shape == (1, 6, 64, 64)
    assert signatures == {
        "serving_default": [[1], [2]],
        "serve_jpeg": [[1], [2]],
        "dense": [[1]],
        "image_masks": [[1]],
        "jpeg_masks": [[1]],
    }
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("uint8")
    (tmp_path / "it.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (tmp_path / "no.png").write_bytes(b"none")
    with ModelServer(session) as server:
        command = [sys.executable, "-IS", folder / "client.py", "--port", str(server.rest_port), "--top", "4"]
        run = subprocess.run([*command, "it.png", "no.png"], capture_output=True, text=True, cwd=tmp_path)
    assert (run.returncode, run.stderr.count("no.png: not a JPEG")) == (1, 1)
    title, *lines = run.stdout.splitlines()
    found = numpy_of(model(pixels[None].astype("float32")))
    assert title == "it.png"
    for line, number, score, box in zip(lines, *(found[name][0] for name in ("classes", "scores", "boxes"))):
        percent, _, *sides, name = line.split()
        assert name == NAMES[number]
        np.testing.assert_allclose(float(percent), 100 * score, atol=0.1)
        np.testing.assert_allclose([*map(float, sides)], box, atol=0.1)
    assert len(lines) == 4


def test_onnx(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    # The optimizer of tf2onnx would take most of the time.
    optimizer = pytest.importorskip("tf2onnx.optimizer")
    monkeypatch.setattr(optimizer, "optimize_graph", lambda graph, *_, **__: graph)
    model = detector("mask_rcnn")
    keras_cnv2.export_onnx(model, tmp_path / "it.onnx", image_size=64)
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    outputs = dict(zip((output.name for output in session.get_outputs()), session.run(None, {"images": images(3)})))
    dense = {"boxes", "scores", "proposals", "objectness", "deltas"}
    assert {*outputs} == {"boxes", "class_ids", "scores", "count", "masks"} | {f"dense_{name}" for name in dense}
    expected = numpy_of(model(images(3)))
    np.testing.assert_array_equal(outputs["class_ids"], expected["classes"])
    np.testing.assert_array_equal(outputs["count"], expected["count"])
    np.testing.assert_allclose(outputs["boxes"], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(outputs["masks"], expected["masks"], atol=1e-3)
