import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_cnv2
from keras_cnv2.export.kinds import classifier as signatures
from keras_cnv2.export.saved_model import export
from tests import golden
from tests.export.small import (
    ARCHITECTURE,
    NAMES,
    backbone,
    classifier,
    encoded,
    pixels,
    png_that_claims,
    shared_backbone,
    shared_classifier,
    sideways,
    with_values,
)
from tests.golden import rule

pytestmark = pytest.mark.lowest

SIZE = 64
SHALLOW = {"depths": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def model():
    return classifier(image_size=SIZE)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "classifier"
    keras_cnv2.export_saved_model(model, path, top=3, max_pixels=200_000)
    return path


@pytest.fixture(scope="module")
def served(path):
    return tf.saved_model.load(str(path)).signatures


@pytest.fixture(scope="module")
def session(path):
    """The same through TensorFlow's C++ session, which is what servers run: a function of a signature and inputs."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))

    def run(name, **inputs):
        signature = loaded.signature_def[name]
        feed = {signature.inputs[key].name: value for key, value in inputs.items()}
        return session.run({key: output.name for key, output in signature.outputs.items()}, feed)

    yield run
    session.close()


def images(count=3, height=80, width=SIZE, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels)).astype("float32")


def assert_answer(answer, probabilities):
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    best = np.argsort(-probabilities)[:, :3]
    np.testing.assert_array_equal(answer["class_ids"], best)
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(probabilities, best, 1), atol=1e-5)
    names = [[name.decode() for name in row] for row in np.asarray(answer["classes"])]
    assert names == [[NAMES[index] for index in row] for row in best]


class TestClassifier:
    def test_images(self, served, model):
        batch = images()
        assert_answer(served["serving_default"](images=tf.constant(batch)), np.asarray(model(batch)))

    def test_images_in_a_session(self, session, model):
        batch = images()
        assert_answer(session("serving_default", images=batch), np.asarray(model(batch)))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_pictures(self, session, model, kind):
        files = [encoded(kind), encoded(kind, seed=1, exif=sideways())]
        answer = session("serve_jpeg", encoded=files)
        expected = np.stack([keras_cnv2.load_image(file, SIZE) for file in files])
        assert_answer(answer, np.asarray(model(expected)))
        assert answer["decoded"].tolist() == [True, True]

    def test_pictures_that_are_none(self, session, model):
        good = encoded()
        files = [good[:900], good, b"", png_that_claims(2**31 - 1, 2**31 - 1), encoded("GIF"), b"\xff\xd8\xff", good]
        files += [encoded(array=pixels(500, 500)), encoded("PNG", array=pixels(1000, 1))]  # too large, too long
        answer = session("serve_jpeg", encoded=files)
        assert answer["decoded"].tolist() == [False, True, False, False, False, False, True, False, False]
        expected = np.asarray(model(keras_cnv2.load_image(good, SIZE)[None]))[0]
        for number, decoded in enumerate(answer["decoded"]):
            np.testing.assert_allclose(answer["probabilities"][number], expected * decoded, atol=1e-5)
        assert answer["class_ids"][0].tolist() == [-1, -1, -1]
        assert answer["classes"][0].tolist() == [b"", b"", b""]
        assert answer["scores"][0].tolist() == [0, 0, 0]

    def test_features(self, session, model):
        encoder = backbone()
        encoder.set_weights(model.get_weights()[:-4])
        batch = images()
        answer = session("features", images=batch)
        expected = keras.Model(encoder.input, encoder.pyramid_outputs)(batch)
        assert {*answer} == {"pooled", "P2", "P3", "P4", "P5"}
        for level, features in expected.items():
            np.testing.assert_allclose(answer[level], features, atol=1e-5 * np.abs(features).max())
        pooled = model.get_layer("norm")(model.get_layer("pool")(expected["P5"]))
        np.testing.assert_allclose(answer["pooled"], pooled, atol=1e-5 * np.abs(pooled).max())

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((0, 64, 64, 3), "at least one image"),
            ((1, 64, 16, 3), "at least 32 pixels"),
            ((1, 500, 500, 3), "at most 200000 pixels"),
        ],
    )
    def test_impossible_images(self, session, shape, message):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            session("serving_default", images=np.zeros(shape))

    def test_no_pictures(self, session):
        with pytest.raises(tf.errors.InvalidArgumentError, match="at least one picture"):
            session("serve_jpeg", encoded=np.zeros(0, object))

    def test_labels_are_an_asset(self, path):
        assert (path / "assets" / "labels.txt").read_text("utf-8").splitlines() == [*NAMES]

    @pytest.mark.slow
    def test_command_of_tensorflow(self, path, tmp_path):
        np.savez(tmp_path / "inputs.npz", images=images())
        command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run", "--dir", path]
        command += ["--tag_set", "serve", "--signature_def", "serving_default", "--outdir", tmp_path]
        command += ["--inputs", f"images={tmp_path / 'inputs.npz'}[images]"]
        subprocess.run(command, check=True, capture_output=True)
        received = tf.saved_model.load(str(path)).signatures["serving_default"](images=tf.constant(images()))
        np.testing.assert_array_equal(np.load(tmp_path / "class_ids.npy"), received["class_ids"])

    def test_holds_weights_once(self, path, model):
        size = sum(file.stat().st_size for file in (path / "variables").iterdir())
        assert size < 4 * model.count_params() + 20_000


class TestVariants:
    def test_fixed_size_and_uint8_and_logit_of_a_single_class(self, tmp_path):
        single = {"classes": 1, "class_names": ["cat"], "classifier_activation": None}
        model = classifier(**SHALLOW, **single, input_shape=(32, 64, 3))
        keras_cnv2.export_saved_model(model, tmp_path / "it", input_dtype="uint8")
        served = tf.saved_model.load(str(tmp_path / "it")).signatures
        assert {*served} == {"serving_default", "features"}  # of images that are not square, no picture is made
        batch = images(2, 32, 64).astype("uint8")
        answer = served["serving_default"](images=tf.constant(batch))
        assert {*answer} == {"logits"}
        np.testing.assert_allclose(answer["logits"], model(batch), atol=1e-5)
        with pytest.raises(tf.errors.InvalidArgumentError):
            served["serving_default"](images=tf.zeros((2, 33, 64, 3), tf.uint8))

    def test_grey_normalised_images_and_logits(self, tmp_path):
        others = {"include_preprocessing": False, "classifier_activation": None}
        model = classifier(**SHALLOW, **others, input_shape=(32, 32, 1), stem_stride=2)
        keras_cnv2.export_saved_model(model, tmp_path / "it", resize="squash", fold=False)
        served = tf.saved_model.load(str(tmp_path / "it")).signatures
        image = keras_cnv2.load_image(encoded(), 32, "squash") @ np.float32([0.299, 0.587, 0.114])
        expected = model(np.asarray(keras_cnv2.preprocess_input(image[None, ..., None])))
        answer = served["serve_jpeg"](encoded=tf.constant([encoded(), b"no picture"]))
        assert answer["decoded"].numpy().tolist() == [True, False]
        np.testing.assert_allclose(answer["logits"], [expected[0], 0 * expected[0]], atol=1e-5)

    def test_half_precision(self, tmp_path):
        full = classifier(**SHALLOW, input_shape=(32, 64, 3))
        half = classifier(**SHALLOW, input_shape=(32, 64, 3), dtype="mixed_bfloat16")
        keras_cnv2.export_saved_model(half, tmp_path / "it")
        served = tf.saved_model.load(str(tmp_path / "it")).signatures["serving_default"]
        batch = images(2, 32, 64)
        np.testing.assert_allclose(served(images=tf.constant(batch))["probabilities"], full(batch), atol=2e-2)

    def test_backbone(self, tmp_path):
        model = shared_backbone()
        keras_cnv2.export_saved_model(model, tmp_path / "it")
        served = tf.saved_model.load(str(tmp_path / "it")).signatures
        assert {*served} == {"serving_default", "features"}
        expected = np.asarray(model(images()))
        answer = served["serving_default"](images=tf.constant(images()))
        np.testing.assert_allclose(answer["P5"], expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(answer["pooled"], expected.mean((1, 2)), atol=1e-5 * np.abs(expected).max())

    def test_fcmae_of_bytes(self, tmp_path):
        """Of float32, the default, `test_other_models` of serving exports one."""
        encoder = keras_cnv2.ConvNeXtV2Backbone(**{**ARCHITECTURE, **SHALLOW})
        model = with_values(keras_cnv2.FCMAE(encoder, image_size=96, mask_ratio=0.5, decoder_dim=16), 0.05)
        keras_cnv2.export_saved_model(model, tmp_path / "it", input_dtype="uint8")
        served = tf.saved_model.load(str(tmp_path / "it")).signatures
        batch = images(2, 96, 96).astype("uint8")
        hidden = np.float32([[[1, 1, 1], [1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 1], [1, 1, 1]]])
        received = served["reconstruct"](images=tf.constant(batch), hidden=tf.constant(hidden))["reconstruction"]
        np.testing.assert_allclose(received, model.reconstruct(batch, hidden), atol=1e-3)  # grey levels
        drawn = served["serving_default"](images=tf.constant(batch))
        np.testing.assert_allclose(drawn["reconstruction"], model.reconstruct(batch, drawn["hidden"]), atol=1e-3)
        np.testing.assert_array_equal(np.sum(drawn["hidden"], (1, 2)), [5, 5])
        with pytest.raises(tf.errors.InvalidArgumentError, match="4 patches of each image visible"):
            served["reconstruct"](images=tf.constant(batch), hidden=tf.zeros((2, 3, 3)))
        again = served["reconstruct"](images=tf.constant(batch), hidden=drawn["hidden"])["reconstruction"]
        np.testing.assert_allclose(again, drawn["reconstruction"], atol=1e-3)

    @pytest.mark.slow
    def test_reference(self, tmp_path):
        reference = golden.load("dense_atto")
        model = keras_cnv2.ConvNeXtV2Atto(include_preprocessing=False, classifier_activation=None)
        golden.set_weights(model, reference["seed"])
        keras_cnv2.export_saved_model(model, tmp_path / "it", image_size=224)
        served = tf.saved_model.load(str(tmp_path / "it")).signatures["serving_default"]
        received = served(images=tf.constant(rule.image(int(reference["seed"]), 2, 224, 224)))["logits"]
        np.testing.assert_allclose(received, reference["224/logits"], atol=1e-5)


class TestErrors:
    @pytest.mark.parametrize(
        ("model_arguments", "arguments", "message"),
        [
            ({}, {"resize": "stretch"}, "resize must be"),
            ({}, {"top": 0}, "top must be"),
            ({}, {"input_dtype": "int8"}, "input_dtype must be one of"),
            ({}, {"max_pixels": 1.5}, "max_pixels must be"),
            ({}, {"max_pixels": 100}, "max_pixels must be at least 200704"),
            ({}, {"image_size": 16}, "image_size must be an int of at least 32"),
            ({"input_shape": (64, 64, 3)}, {"image_size": 96}, "image_size must be"),
            ({"include_preprocessing": False}, {"input_dtype": "uint8"}, "take normalised images"),
            ({}, {"class_names": ["a", "b"]}, "class_names must be 5 names, one per class. Received: 2 names"),
            ({"class_names": ["a", "b", "c", "d", "e\nf"]}, {}, "one line each"),
        ],
    )
    def test_arguments(self, model_arguments, arguments, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            keras_cnv2.export_saved_model(shared_classifier(**model_arguments), tmp_path / "it", **arguments)
        assert [*tmp_path.iterdir()] == []

    def test_other_models(self, tmp_path):
        with pytest.raises(ValueError, match="must be a ConvNeXtV2"):
            keras_cnv2.export_saved_model(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "it")

    def test_other_backends(self, monkeypatch, tmp_path):
        monkeypatch.setattr(export.keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
            keras_cnv2.export_saved_model(None, tmp_path / "it")

    def test_what_differs_is_not_left(self, monkeypatch, tmp_path):
        def wrongly_folded(encoder):
            folded = keras_cnv2.fold(encoder)
            folded.get_layer("head").bias.assign_add([0, 0, 0, 0, 1e-2])
            return folded

        monkeypatch.setattr(signatures, "fold", wrongly_folded)
        with pytest.raises(keras_cnv2.ExportError, match="probabilities: the export's values are not the model's"):
            keras_cnv2.export_saved_model(classifier(**SHALLOW, input_shape=(32, 64, 3)), tmp_path / "it")
        assert [*tmp_path.iterdir()] == []

    def test_full_disk(self, monkeypatch, tmp_path):
        def fails(*_):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

        monkeypatch.setattr(tf.saved_model, "save", fails)
        with pytest.raises(OSError, match="cannot be written: No space left on device. Received: .*new"):
            keras_cnv2.export_saved_model(shared_backbone(), tmp_path / "it")
        assert [*tmp_path.iterdir()] == []

    def test_something_is_there(self, monkeypatch, tmp_path):
        (tmp_path / "it").mkdir()
        with pytest.raises(FileExistsError, match="something already"):
            keras_cnv2.export_saved_model(shared_classifier(), tmp_path / "it")
        monkeypatch.setattr("keras_cnv2.export.saved_model.check.check_saved_model", lambda *_: None)
        for _ in range(2):  # an empty folder, then a SavedModel
            keras_cnv2.export_saved_model(shared_backbone(), tmp_path / "it", overwrite=True)
            assert (tmp_path / "it" / "saved_model.pb").exists()
            assert [*tmp_path.iterdir()] == [tmp_path / "it"]

    def test_other_things_are_not_overwritten(self, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "mine.jpg").write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="something already"):
            keras_cnv2.export_saved_model(shared_backbone(), tmp_path / "photos", overwrite=True)
        assert (tmp_path / "photos" / "mine.jpg").read_bytes() == b"mine"


def test_quantized_models(tmp_path):
    model = classifier(**SHALLOW, image_size=32)
    model.quantize("int8")
    keras_cnv2.export_saved_model(model, tmp_path / "exported")
    serve = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    inputs = images(2, 32, 32)
    assert_answer(
        {name: value[:, :3] if name != "probabilities" else value for name, value in serve(images=inputs).items()},
        model.predict(inputs, verbose=0),
    )
