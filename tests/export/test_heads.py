"""Heads of the user's own, and models of numbers, in every kind of export; and what exports say about themselves."""

import json
import zipfile

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import keras_cnv2
from keras_cnv2.export.kinds.kind import kind_for
from keras_cnv2.export.labels import labels_of
from keras_cnv2.export.litert import export as litert
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.export.options import Options
from tests.export.litert import litert_files
from tests.export.litert.litert_files import run
from tests.export.small import NAMES, backbone, classifier, encoded, shared_backbone, shared_classifier, with_values

SIZE = 32
SHALLOW = {"depths": (1, 1, 1, 1)}


def images(count=2):
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3)).astype("float32")


def saved_model(model, path, **options):
    keras_cnv2.export_saved_model(model, path, **options)
    return tf.saved_model.load(str(path)).signatures


def session(model, path, **options):
    keras_cnv2.export_onnx(model, path, **options)
    return onnxruntime.InferenceSession(path)


@pytest.fixture(scope="module")
def sequential():
    """As README fine-tunes."""
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, activation="softmax")]
    return with_values(keras.Sequential([shared_backbone(), *head]))


@pytest.fixture(scope="module")
def several():
    """Two outputs on the layers of a backbone: an age, and maps."""
    encoder = backbone(input_shape=(SIZE, SIZE, 3))
    pooled = keras.layers.GlobalMaxPooling2D()(encoder.output)
    age = keras.layers.Dense(1, name="age")(pooled)
    maps = keras.layers.Conv2D(2, 1, activation="relu", name="maps")(encoder.get_layer("stages_1_0").output)
    return with_values(keras.Model(encoder.input, [age, maps]))


class TestClassifier:
    def test_saved_model(self, sequential, tmp_path):
        served = saved_model(sequential, tmp_path / "it", image_size=SIZE, resize="squash", class_names=NAMES, top=2)
        assert {*served} == {"serving_default", "serve_jpeg"}
        picture = keras_cnv2.load_image(encoded(), SIZE, "squash")
        expected = np.asarray(sequential(picture[None]))[0]
        answer = served["serve_jpeg"](encoded=tf.constant([encoded(), b"none"]))
        np.testing.assert_allclose(answer["probabilities"], [expected, 0 * expected], atol=1e-5)
        best = np.argsort(-expected)[:2]
        assert [name.decode() for name in answer["classes"].numpy()[0]] == [NAMES[index] for index in best]
        assert answer["class_ids"].numpy().tolist() == [[*best], [-1, -1]]
        labels = (tmp_path / "it" / "assets" / "labels.txt").read_text("utf-8").splitlines()
        assert labels == [*NAMES]

    def test_classes_without_names_are_numbered(self, sequential, tmp_path):
        for kind, options in ((".tflite", {"image_size": SIZE}), (".onnx", {})):
            path = tmp_path / f"it{kind}"
            (keras_cnv2.export_litert if options else keras_cnv2.export_onnx)(sequential, path, **options)
        with zipfile.ZipFile(tmp_path / "it.tflite") as archive:
            assert archive.read("labels.txt").decode().splitlines() == [f"class {index}" for index in range(5)]
        np.testing.assert_allclose(
            run(tmp_path / "it.tflite", images())["probabilities"], sequential(images()), atol=1e-5
        )
        read = onnxruntime.InferenceSession(tmp_path / "it.onnx")
        (received,) = read.run(["probabilities"], {"images": images()})
        np.testing.assert_allclose(received, sequential(images()), atol=1e-5)
        assert json.loads(read.get_modelmeta().custom_metadata_map["keras_cnv2"])["class_names"][4] == "class 4"

    @pytest.mark.slow
    def test_int8(self, tmp_path):
        """Channels are evened out in the blocks of a model within it as well."""
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.LayerNormalization(), keras.layers.Dense(5)]
        encoder = backbone(input_shape=(litert_files.SIZE, litert_files.SIZE, 3))
        sequential = with_values(keras.Sequential([encoder, *head, keras.layers.Softmax()]))
        keras_cnv2.export_litert(sequential, tmp_path / "it.tflite", "int8", litert_files.images(8, seed=1))
        received = run(tmp_path / "it.tflite", litert_files.images())["probabilities"]
        np.testing.assert_allclose(received, sequential(litert_files.images()), atol=0.05)


class TestNumbers:
    @pytest.mark.slow
    def test_several_outputs(self, several, tmp_path):
        expected = dict(zip(("age", "maps"), map(np.asarray, several(images()))))
        served = saved_model(several, tmp_path / "it")
        answers = [served["serving_default"](images=tf.constant(images()))]
        read = session(several, tmp_path / "it.onnx")
        answers.append(dict(zip([o.name for o in read.get_outputs()], read.run(None, {"images": images()}))))
        keras_cnv2.export_litert(several, tmp_path / "it.tflite")
        answers.append(run(tmp_path / "it.tflite", images()))
        for answer in answers:
            assert {*answer} == {"age", "maps"}
            for name, values in expected.items():
                np.testing.assert_allclose(answer[name], values, atol=1e-5 * np.abs(values).max())
        pictures = served["serve_jpeg"](encoded=tf.constant([b"none"]))
        np.testing.assert_array_equal(pictures["maps"], np.zeros((1, 4, 4, 2)))

    @pytest.mark.slow
    def test_dict_of_one_and_layers_of_the_users(self, tmp_path):
        """Pixels go into layers of their own; a normalised encoder follows."""
        photos = keras.Input((SIZE, SIZE, 3), name="photos")
        encoder = backbone(include_preprocessing=False)
        pooled = keras.layers.GlobalAveragePooling2D()(encoder(keras.layers.Rescaling(1 / 127.5, -1)(photos)))
        model = with_values(keras.Model(photos, {"years": keras.layers.Dense(1)(pooled)}))
        served = saved_model(model, tmp_path / "it", input_dtype="uint8")
        received = served["serving_default"](images=tf.constant(images(), tf.uint8))
        np.testing.assert_allclose(received["years"], model(images())["years"], rtol=1e-4)
        picture = keras_cnv2.load_image(encoded(), SIZE)[None]
        received = served["serve_jpeg"](encoded=tf.constant([encoded()]))["years"]
        np.testing.assert_allclose(received, model(picture)["years"], rtol=1e-4)

    @pytest.mark.slow
    def test_activation_of_another_kind(self, tmp_path):
        model = classifier(**SHALLOW, classifier_activation="exponential", input_shape=(SIZE, SIZE, 3))
        served = saved_model(model, tmp_path / "it")
        assert {*served} == {"serving_default", "serve_jpeg", "features"}
        answer = served["serving_default"](images=tf.constant(images()))
        assert {*answer} == {"scores"}
        np.testing.assert_allclose(answer["scores"], model(images()), rtol=1e-4)


@pytest.fixture(scope="module")
def model():
    return classifier(**SHALLOW, image_size=SIZE, resize="squash")


class TestMetadata:
    """What the export does, not what the model would do by itself."""

    ASKED = {"image_size": 64, "resize": "crop", "class_names": ["v", "w", "x", "y", "z"]}

    @pytest.mark.slow
    def test_every_export(self, model, tmp_path):
        keras_cnv2.export_saved_model(model, tmp_path / "it", **self.ASKED)
        version = keras_cnv2.export_serving(model, tmp_path / "serving", max_batch_size=1, **self.ASKED)
        keras_cnv2.export_onnx(model, tmp_path / "it.onnx", **self.ASKED)
        keras_cnv2.export_litert(model, tmp_path / "it.tflite", **self.ASKED)
        meta = onnxruntime.InferenceSession(tmp_path / "it.onnx").get_modelmeta()
        found = [json.loads(meta.custom_metadata_map["keras_cnv2"])]
        found += [
            json.loads((folder / "assets.extra/keras_cnv2.json").read_text()) for folder in (tmp_path / "it", version)
        ]
        with zipfile.ZipFile(tmp_path / "it.tflite") as archive:
            litert = json.loads(archive.read("keras_cnv2.json"))
            litert["class_names"] = archive.read("labels.txt").decode().splitlines()
        assert litert.pop("image_size") == [64, 64]
        assert (litert.pop("quantization"), litert.pop("include_preprocessing")) == (None, True)
        found.append({**litert, "image_size": 64})
        assert found == [{**self.ASKED, "channels": 3, "mean": [0, 0, 0], "std": [1, 1, 1]}] * 4

    @pytest.mark.parametrize(
        ("channels", "statistics"),
        [
            (3, ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])),
            (1, ([114.495], [57.63])),
            (12, (None, None)),  # only the user knows
        ],
    )
    def test_normalised_images(self, channels, statistics):
        model = classifier(**SHALLOW, include_preprocessing=False, input_shape=(64, SIZE, channels))
        found = exported_metadata(kind_for(model)(model, Options()))
        assert (found["image_size"], found["channels"], "resize" in found) == ([64, SIZE], channels, False)
        for name, values in zip(("mean", "std"), statistics):
            assert values is None if name not in found else found[name] == pytest.approx(values, rel=1e-4)

    def test_what_was_asked_for(self, model):
        for asked, found in (
            ({}, (SIZE, "squash")),
            ({"image_size": 64}, (64, "crop")),
            ({"image_size": 64, "resize": "squash"}, (64, "squash")),
            ({"resize": "crop"}, (SIZE, "crop")),
        ):
            options = Options(class_names=self.ASKED["class_names"], **asked)
            metadata = exported_metadata(kind_for(model)(model, options))
            assert (metadata["image_size"], metadata["resize"]) == found
            assert metadata["class_names"] == self.ASKED["class_names"]
        assert kind_for(shared_backbone())(shared_backbone(), Options()).pictures == ((None, None), None)

    def test_calibration_follows(self, model, monkeypatch, tmp_path):
        (tmp_path / "it.png").write_bytes(encoded("PNG"))
        seen = []

        def stop(named, shape, input_dtype, batches):
            seen.extend(batches)
            raise KeyboardInterrupt

        monkeypatch.setattr(litert, "_function", stop)
        for options, way in ({"image_size": 64}, "crop"), ({"resize": "squash", "image_size": 64}, "squash"):
            with pytest.raises(KeyboardInterrupt):
                keras_cnv2.export_litert(model, tmp_path / "it.tflite", "int8", [tmp_path / "it.png"], **options)
            np.testing.assert_array_equal(seen.pop()[0], keras_cnv2.load_image(tmp_path / "it.png", 64, way))


class TestErrors:
    @pytest.mark.parametrize("kind", ["saved_model", "serving", "litert", "onnx"])
    def test_models_that_are_not_on_one_encoder(self, kind, tmp_path):
        both = keras.Input((SIZE, SIZE, 3))
        two = keras.Model(both, [shared_backbone()(both), backbone(name="other")(both)])
        export = getattr(keras_cnv2, f"export_{kind}")
        with pytest.raises(ValueError, match="holds 2 encoders"):
            export(two, tmp_path / ("it" + {"litert": ".tflite", "onnx": ".onnx"}.get(kind, "")))
        assert [*tmp_path.iterdir()] == []

    def test_more_inputs_than_images(self, tmp_path):
        pictures, age = keras.Input((SIZE, SIZE, 3)), keras.Input((1,))
        pooled = keras.layers.GlobalAveragePooling2D()(shared_backbone()(pictures))
        model = keras.Model([pictures, age], keras.layers.Dense(2)(keras.layers.Concatenate()([pooled, age])))
        with pytest.raises(ValueError, match=r"one input, images.*Received: inputs of"):
            keras_cnv2.export_onnx(model, tmp_path / "it.onnx")

    def test_names_of_what_has_no_classes(self, several, tmp_path):
        for model in (several, shared_backbone()):
            with pytest.raises(ValueError, match="class_names are for models that return one row of classes"):
                keras_cnv2.export_saved_model(model, tmp_path / "it", class_names=["a"])

    @pytest.mark.parametrize("name", ["", "a\nb", "a\x85b", "\ud800", b"a", 1, None])
    def test_names_that_are_no_text_of_one_line(self, name):
        with pytest.raises(ValueError, match="Class names must be text of one line each.*Received: "):
            labels_of(shared_classifier(), [*NAMES[:-1], name])

    def test_weights_that_are_no_numbers(self, tmp_path):
        model = classifier(**SHALLOW, input_shape=(SIZE, SIZE, 3), classifier_activation=None)
        model.get_layer("head").bias.assign([0, 0, np.nan, 0, 0])
        with pytest.raises(keras_cnv2.ExportError, match="logits: the export's values are not the model's"):
            keras_cnv2.export_onnx(model, tmp_path / "it.onnx")
        assert [*tmp_path.iterdir()] == []
