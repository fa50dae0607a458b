import json

import keras
import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from tests.training.analysis.small import SMALL, classifier
from tests.training.small import FRAMED, source
from training.analysis import measures
from training.analysis.features import Blocks
from training.commands import analyze
from training.errors import DataError, RecipeError


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
