import keras
import numpy as np
import pytest
from PIL import Image

import keras_cnv2
import training
from keras_cnv2.images.classes import imagenet_classes, imagenet_wnids
from tests.training.small import FRAMED, source
from training.commands.evaluate import run
from training.commands.evaluation import Evaluation
from training.data.images import arrays
from training.errors import RecipeError
from training.evaluation.classification import Scores, columns_of, evaluate


def classifier(classes=3, **arguments):
    keras.utils.set_random_seed(1)
    return keras_cnv2.ConvNeXtV2(
        (1, 1, 1, 1), (4, 6, 8, 10), classes=classes, stem_stride=1, input_shape=(16, 16, 3), **arguments
    )


@pytest.mark.backends
@pytest.mark.parametrize("classes", [2, 7, 60])
def test_scores_are_those_counted_by_hand(classes):
    rng = np.random.default_rng(0)
    columns = rng.permutation(classes)[: max(2, classes - 3)]
    labels = rng.integers(0, len(columns), 50)
    predictions = rng.random((50, classes)).astype("float32")
    scores = Scores(columns, classes)
    for part in (slice(0, 32), slice(32, 50)):
        scores.update_state(np.eye(len(columns), dtype="float32")[labels[part]], predictions[part])
    ranks = np.argsort(-predictions, axis=1)
    hits = ranks[:, 0] == columns[labels]
    convert = keras.ops.convert_to_numpy
    assert float(scores.result()) == pytest.approx(hits.mean())
    assert convert(scores.in_top5) == sum(columns[label] in rank[:5] for label, rank in zip(labels, ranks))
    np.testing.assert_array_equal(convert(scores.images), np.bincount(labels, minlength=len(columns)))
    np.testing.assert_array_equal(convert(scores.correct), np.bincount(labels[hits], minlength=len(columns)))
    if classes > 50:
        assert scores.matrix is None
    else:
        expected = np.zeros((classes, classes))
        np.add.at(expected, (columns[labels], ranks[:, 0]), 1)
        np.testing.assert_array_equal(convert(scores.matrix), expected)
    scores.reset_state()
    assert convert(scores.images).sum() == 0


def test_images_of_other_channels(tmp_path):
    classifier(10, class_names=[*map(str, range(10))]).save(tmp_path / "classifier.keras")
    with pytest.raises(RecipeError, match=r"images of 3 channels.*Received: data=digits with 1"):
        run(Evaluation(weights=str(tmp_path / "classifier.keras"), data="digits"))


@pytest.mark.parametrize(("given", "framed"), FRAMED)
def test_pictures_are_framed_as_the_command_and_the_model_say(given, framed, monkeypatch):
    model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 6, 8, 10), classes=2, image_size=64, resize="squash")
    asked = []

    def stop(evaluation):
        asked.append((evaluation.image_size, evaluation.resize))
        raise RecipeError("that is all")

    monkeypatch.setattr("training.commands.evaluate.restore_model", lambda *_, **__: model)
    monkeypatch.setattr("training.commands.evaluate.open_source", stop)
    with pytest.raises(RecipeError, match="that is all"):
        run(Evaluation(weights="w", data="d", **given))
    assert asked == [framed]


def test_figures_have_a_place_before_they_are_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("training.commands.evaluate.run", lambda *_: pytest.fail("It is evaluated."))
    with pytest.raises(FileNotFoundError, match="no such folder to write to. Received: .*none/x.json"):
        training.evaluate(weights="w", data="d", json=tmp_path / "none" / "x.json")


@pytest.mark.backends
def test_partial_batches_count_exactly():
    model = classifier(class_names=source().class_names)
    test = source(test=11).test
    figures, matrix = evaluate(model, source(test=11), None, 4)
    predictions = model.predict(test.images, verbose=0).argmax(-1)
    assert figures["images"] == matrix.sum() == 11
    assert figures["top1"] == pytest.approx(np.mean(predictions == test.labels))
    assert figures["top5"] == 1
    for number, name in enumerate(source().class_names):
        mine = test.labels == number
        assert figures["classes"][name] == pytest.approx(np.mean(predictions[mine] == number))


@pytest.mark.backends
def test_mirrored():
    model, data = classifier(class_names=source().class_names), source(test=11)
    figures, _ = evaluate(model, data, None, 4, mirrored=True)
    images, labels = data.test
    mean = (model.predict(images, verbose=0) + model.predict(images[:, :, ::-1], verbose=0)) / 2
    assert figures["mirrored"] == {"top1": pytest.approx(np.mean(mean.argmax(-1) == labels)), "top5": 1.0}
    assert "mirrored" not in evaluate(model, data, None, 4)[0]


def test_class_without_a_picture_has_no_accuracy():
    model = classifier(class_names=["class 0", "class 1", "class 2"])
    data = arrays.Arrays(source().train, arrays.Split(*(part[:2] for part in source().test)), source().class_names)
    figures, _ = evaluate(model, data, None, 2)
    assert figures["classes"]["class 2"] is None
    assert figures["images"] == 2


@pytest.mark.usefixtures("quick_pictures")
@pytest.mark.parametrize("split", [False, True])
def test_evaluation_of_what_was_trained_on_is_told(tmp_path, caplog, split):
    classifier(2, class_names=["a", "b"]).save(tmp_path / "classifier.keras")
    for number, name in enumerate(("train/a", "train/b", *(("val/a", "val/b") if split else ()))):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (80 * number,) * 3).save(tmp_path / name / "0.png")
    data, weights = str(tmp_path if split else tmp_path / "train"), str(tmp_path / "classifier.keras")
    figures = run(Evaluation(data=data, weights=weights, image_size=16))
    assert figures["images"] == 2
    assert ("no validation split: evaluated on all 2 pictures" in caplog.text) is not split


class TestHeadsOfTheUsers:
    def test_same_scores_whoever_normalises(self):
        """A head of the user's own and a classifier for normalised images see the same pictures."""
        model = classifier(class_names=source().class_names)
        expected, matrix = evaluate(model, source(test=11), None, 4)
        normalised = classifier(class_names=source().class_names, include_preprocessing=False)
        normalised.set_weights(model.get_weights())
        images = keras.Input((16, 16, 3))
        mine = keras.Model(images, {"out": keras.layers.Dropout(0.5)(normalised(images))})
        for other, names in ((normalised, None), (mine, source().class_names)):
            figures, counted = evaluate(other, source(test=11), None, 4, class_names=names)
            assert (figures["top1"], figures["classes"]) == (expected["top1"], expected["classes"])
            np.testing.assert_array_equal(counted, matrix)

    def test_classes_that_nobody_named_are_those_of_the_data(self, caplog):
        assert columns_of(["x", "y", "z"], classifier()) == [0, 1, 2]
        assert "those of the data are used, in their order" in caplog.text
        with pytest.raises(RecipeError, match="the weights know 1000"):
            columns_of(["x", "y"], classifier())

    def test_names_given(self, tmp_path):
        assert columns_of(["c", "a"], classifier(), ["a", "b", "c"]) == [2, 0]

    def test_image_size_of_another_model(self, tmp_path):
        backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), input_shape=(32, 32, 3))
        model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        model.save(tmp_path / "m.keras")
        with pytest.raises(RecipeError, match=r"must be that of the weights' images, \(32, 32\). Received: 64"):
            run(Evaluation(weights=str(tmp_path / "m.keras"), data="none", image_size=64))


class TestColumns:
    def test_numbers_that_were_names_once(self):
        assert columns_of(["class 2", "class 0"], classifier(class_names=["0", "1", "2"])) == [2, 0]

    def test_by_name(self):
        assert columns_of(["c", "a"], classifier(class_names=["a", "b", "c"])) == [2, 0]

    def test_imagenet_s_folders(self):
        model = classifier(1000, class_names=imagenet_classes())
        assert columns_of(imagenet_wnids()[5:8], model) == [5, 6, 7]
        assert columns_of(imagenet_classes()[:2], model) == [0, 1]

    def test_unknown_classes_are_named(self):
        with pytest.raises(RecipeError, match=r"1 others, such as \['x'\]; the weights know 3"):
            columns_of(["a", "x"], classifier(class_names=["a", "b", "c"]))

    def test_one_class(self):
        model = classifier(1, class_names=["a"], classifier_activation="sigmoid")
        with pytest.raises(RecipeError, match=r"2 classes or more.* Received: .* with classes=1"):
            columns_of(["a"], model)
