import json
import tracemalloc

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import keras_cnv2
from tests.training.small import FRAMED, source
from training.analysis import measures
from training.analysis.features import Blocks
from training.analysis.models import explain
from training.commands import analyze
from training.drawing.analysis import activations, distances, mosaic, selectivity
from training.errors import DataError, RecipeError

SMALL = {"depths": (1, 2, 1, 1), "dims": (4, 6, 8, 10), "stem_stride": 1, "input_shape": (None, None, 3)}
NAMES = ("a", "b", "c")


def classifier(**arguments):
    """With values that are not those of the beginning: GRN does something."""
    model = keras_cnv2.ConvNeXtV2(**SMALL, classes=3, class_names=NAMES, **arguments)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def images(count=4, side=16):
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype("float32")


class TestCosineDistance:
    def test_by_hand(self):
        """By the paper's formula, pair by pair."""
        x = np.random.default_rng(0).normal(0.3, 1, (2, 3, 4, 5)).astype("float32")
        x[1, ..., 2] = 0
        for image, distance in zip(x, measures.cosine_distance(x)):
            channels = image.reshape(-1, 5).T
            total = 0
            for one in channels:
                for two in channels:
                    lengths = np.linalg.norm(one) * np.linalg.norm(two)
                    total += (1 - (one @ two / lengths if lengths else 0)) / 2
            assert distance == pytest.approx(total / 25, abs=1e-6)

    def test_known_cases(self):
        same = np.ones((1, 2, 2, 8)) * np.arange(1, 9)
        np.testing.assert_allclose(measures.cosine_distance(same), 0, atol=1e-12)
        opposite = np.ones((1, 2, 2, 8)) * np.repeat([1, -1], 4)
        np.testing.assert_allclose(measures.cosine_distance(opposite), 0.5)
        orthogonal = np.eye(4).reshape(1, 2, 2, 4)
        np.testing.assert_allclose(measures.cosine_distance(orthogonal), 0.5 * (1 - 1 / 4))


class TestSelectivity:
    def test_known_cases(self):
        """Channels: for class 0 alone, for all alike, twice as much for class 2, never, only below zero."""
        activity = np.array([[3.0, 1, 1, 0, -1], [0, 1, 1, 0, -2], [0, 1, 2, 0, -3]])
        labels = np.array([0, 1, 2, 0, 1, 2])
        outputs = np.broadcast_to(activity[labels][:, None, None], (6, 2, 3, 5))
        counted = measures.Selectivity(4)  # one of them without images
        for part in (slice(0, 4), slice(4, 6)):
            counted.update(outputs[part], labels[part])
        np.testing.assert_allclose(counted.result(), [1, 0, 1 / 3, 0, 0])

    def test_memory_of_many_classes(self):
        """It grows with their number, not with its square."""
        counted = measures.Selectivity(5000)
        tracemalloc.start()
        counted.update(np.ones((2, 1, 1, 3)), np.array([1, 4999]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        np.testing.assert_array_equal(np.flatnonzero(counted.images), [1, 4999])

    def test_one_class_is_too_few(self):
        counted = measures.Selectivity(2)
        counted.update(np.ones((2, 1, 1, 3)), np.array([1, 1]))
        with pytest.raises(ValueError, match="two classes or more. Received: 1"):
            counted.result()


def test_grad_cam_has_the_gradient_of_the_logit():
    import tensorflow as tf

    model = classifier(classifier_activation=None)
    tail = keras.Sequential([model.get_layer(name) for name in ("pool", "norm", "head")])
    features = np.random.default_rng(0).normal(0, 1, (3, 2, 5, 10)).astype("float32")
    labels = np.array([2, 0, 1])
    x = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.gather(tail(x), labels, batch_dims=1)
    gradient = tape.gradient(logits, x).numpy()
    expected = np.maximum((features * gradient.mean((1, 2), keepdims=True)).sum(-1), 0)
    expected /= expected.max((1, 2), keepdims=True)
    found = measures.grad_cam(features, model.get_layer("norm"), model.get_layer("head"), labels)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.max((1, 2)) == pytest.approx(1)


@pytest.mark.parametrize(("given", "framed"), FRAMED)
def test_pictures_are_framed_as_the_command_and_the_first_model_say(given, framed, tmp_path, monkeypatch):
    models = {"first": classifier(image_size=64, resize="squash"), "second": classifier(image_size=32, resize="crop")}
    asked = []

    def stop(evaluation, labelled):
        asked.append((evaluation.image_size, evaluation.resize))
        raise DataError("that is all")

    monkeypatch.setattr("training.commands.analyze.restore_model", lambda weights, *_, **__: models[weights])
    monkeypatch.setattr("training.commands.analyze.open_source", stop)
    with pytest.raises(DataError, match="that is all"):
        analyze.run([*models], tmp_path / "analysis", data="d", **given)
    assert asked == [framed]


@pytest.mark.backends
def test_blocks():
    """What they hold leads to what comes out of them."""
    model = classifier()
    blocks = Blocks(model)
    assert blocks.names == ["stages_0_0", "stages_1_0", "stages_1_1", "stages_2_0", "stages_3_0"]
    before = None
    for name, (expanded, output) in zip(blocks.names, blocks.of(images())):
        assert expanded.shape == (*output.shape[:-1], 4 * output.shape[-1])
        if name == "stages_1_1":
            out = keras.ops.convert_to_numpy(model.get_layer(name).pwconv2(expanded))
            np.testing.assert_allclose(output, before + out, atol=1e-4)
        before = output
    top = keras.ops.convert_to_numpy(model.get_layer("head")(model.get_layer("norm")(output.mean((1, 2)))))
    np.testing.assert_allclose(top, keras.ops.convert_to_numpy(model(images())), atol=1e-5)


def test_blocks_of_an_fcmae():
    fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL), 16, decoder_dim=8)
    (*_, (_, output)), expected = Blocks(fcmae).of(images()), fcmae.backbone(images())
    np.testing.assert_allclose(output, keras.ops.convert_to_numpy(expected), atol=1e-6)


def test_mosaic():
    channels = np.arange(2 * 3 * 5, dtype=float).reshape(2, 3, 5)
    channels[..., 1] = 7
    found = mosaic(channels, 4)
    assert found.shape == (2 * 3 - 1, 2 * 4 - 1)
    np.testing.assert_allclose(found[:2, :3], channels[..., 0] / 25)
    np.testing.assert_array_equal(found[:2, 4:], 0)  # channel 1, which is all alike
    assert np.isnan(found[2]).all()


@pytest.fixture
def figures(monkeypatch):
    """Those that are saved from now on; no files come of them."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (saved.append(self), path.touch()))
    return saved


class TestModelsOfTwoDepths:
    """Blocks are in the order of their numbers, and curves at their places."""

    SHALLOW = ("stages_0_0", "stages_1_0", "stages_2_0", "stages_3_0")
    DEEP = (*(f"stages_0_{n}" for n in range(11)), "stages_1_0", "stages_1_1", "stages_2_0", "stages_3_0")

    def of_each(self, value):
        return {"shallow": dict.fromkeys(self.SHALLOW, value), "deep": dict.fromkeys(self.DEEP, value)}

    def test_distances(self, figures, tmp_path):
        distances(tmp_path / "a.png", self.of_each(0.5))
        (axes,) = figures[0].axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == [*self.DEEP]
        assert axes.get_xticks().tolist() == [*range(15)]
        assert [[*line.get_xdata()] for line in axes.lines] == [[0, 11, 13, 14], [*range(15)]]

    def test_selectivity(self, figures, tmp_path):
        selectivity(tmp_path / "a.png", self.of_each(np.full(4, 0.5)))
        panels = figures[0].axes[: len(self.DEEP)]
        assert [axes.get_title() for axes in panels] == [*self.DEEP]
        assert [len(axes.patches) == 2 for axes in panels] == [block in self.SHALLOW for block in self.DEEP]

    def test_activations(self, figures, tmp_path):
        activations(tmp_path / "a.png", images()[0], self.of_each(np.ones((2, 2, 4))))
        assert [axes.get_title() for axes in figures[0].axes[:16]] == ["shallow", *self.DEEP]


@pytest.mark.parametrize(("classes", "name"), [(1000, "tench"), (3, "class 0")])
def test_grad_cam_names_the_classes_of_a_model_without_names(classes, name):
    """A thousand are ImageNet's, as in `predict`."""
    model = keras_cnv2.ConvNeXtV2(**SMALL, classes=classes)
    model.get_layer("head").bias.assign(np.eye(classes)[0] * 20)
    _, told = explain(model, images(1))
    assert told == [f"{name} 100%"]


class TestCommand:
    @pytest.fixture(scope="class")
    def weights(self, tmp_path_factory):
        paths = [str(tmp_path_factory.mktemp("weights") / f"{name}.keras") for name in ("one", "two")]
        classifier().save(paths[0])
        keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL), 16, decoder_dim=8).save(paths[1])
        return paths

    @pytest.fixture
    def data(self, tmp_path):
        images, labels = source(size=16).test
        splits = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
        np.savez(tmp_path / "data.npz", **splits)
        return str(tmp_path / "data.npz")

    def test_two_models(self, weights, data, tmp_path):
        folder = tmp_path / "analysis"
        found = analyze.run(weights, folder, 10, data=data, image_size=16, batch_size=4)
        assert found == json.loads((folder / "analysis.json").read_text())
        assert [*found] == ["one.keras", "two.keras"]
        names = {"analysis.json", "cosine_distance.png", "selectivity.png", "activations.png", "grad_cam.png"}
        assert {path.name for path in folder.iterdir()} == names
        batch = source(size=16).examples(None, 10).astype("float32")
        model = keras.saving.load_model(weights[0])
        for block, (expanded, _) in zip(Blocks(model).names, Blocks(model).of(batch)):
            mean = measures.cosine_distance(expanded).mean()
            assert found["one.keras"]["cosine_distance"][block] == pytest.approx(mean, abs=1e-5)
        assert all(0 <= s["mean"] <= 1 for s in found["two.keras"]["class_selectivity"].values())

    def test_without_classes(self, weights, data, tmp_path):
        folder = tmp_path / "analysis"
        found = analyze.run(weights[1:], folder, 3, labelled=False, data=data)  # the images are of the FCMAE's size
        assert [*found["two.keras"]] == ["cosine_distance"]
        assert {path.name for path in folder.iterdir()} == {"analysis.json", "cosine_distance.png", "activations.png"}

    def test_names(self):
        assert analyze.short_name("runs/a/classifier", {}) == "classifier"
        assert analyze.short_name("runs/b/classifier", {"classifier": 0}) == "b/classifier"
        assert analyze.short_name("x", {"x": 0}) == "x (2)"

    @pytest.mark.parametrize("number", [0, 1])
    def test_images_of_other_channels(self, weights, tmp_path, number):
        with pytest.raises(RecipeError, match=r"images of 3 channels.*Received: data=digits with 1"):
            analyze.run(weights[number:], tmp_path / "analysis", data="digits", image_size=16)

    def test_one_class(self, weights, data, tmp_path):
        with pytest.raises(RecipeError, match="two classes or more"):
            analyze.run(weights, tmp_path / "analysis", 1, data=data, image_size=16)
        assert not (tmp_path / "analysis").exists()

    def test_unreadable_pictures_are_named_before(self, weights, tmp_path, caplog):
        for name in ("a", "b"):
            (tmp_path / "data" / name).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(tmp_path / "data" / name / "0.png")
        (tmp_path / "data" / "a" / "1.png").write_bytes(b"none")
        analyze.run(weights[:1], tmp_path / "analysis", data=str(tmp_path / "data"), image_size=16)
        assert "Left out, as it cannot be read: " in caplog.text
        assert "1.png: no JPEG, PNG" in caplog.text
        for number in range(12):
            (tmp_path / "wide" / f"{number % 2}").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16)).save(tmp_path / "wide" / f"{number % 2}" / f"{number}.png")
        with pytest.raises(DataError, match="12 pictures of 12 cannot be read: .*16 x 16 pixels are more than"):
            analyze.run(weights[:1], tmp_path / "it", data=str(tmp_path / "wide"), image_size=16, max_pixels=100)
        assert not (tmp_path / "it").exists()
