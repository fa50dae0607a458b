import json

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.registry import find_checkpoint
from keras_cnv2.checkpoints.write import write_tensors
from keras_cnv2.images.classes import imagenet_classes
from keras_cnv2.images.normalization import channel_statistics
from keras_cnv2.pretrained import save, timm, transformers
from keras_cnv2.pretrained.card import card_of, front_matter
from keras_cnv2.pretrained.facts import facts_of
from keras_cnv2.restore import restore_model
from tests.export.small import ARCHITECTURE, NAMES, backbone, classifier, shared_backbone, shared_classifier

SHALLOW = {"depths": (1, 1, 1, 1)}
STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.5, 0.125)}


def images(count=2, side=64):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype("float32")


def read(folder, name):
    return json.loads((folder / name).read_text("utf-8"))


class TestFiles:
    def test_transformers(self, tmp_path):
        model = classifier(image_size=64, resize="crop", drop_path_rate=0.1, **STATISTICS)
        keras_cnv2.save_pretrained(model, tmp_path / "it")
        config = read(tmp_path / "it", "config.json")
        assert (config["model_type"], config["architectures"]) == ("convnextv2", ["ConvNextV2ForImageClassification"])
        assert (config["depths"], config["hidden_sizes"]) == ([1, 1, 2, 1], [8, 16, 24, 32])
        assert (config["num_channels"], config["patch_size"], config["image_size"]) == (3, 4, 64)
        assert (config["layer_norm_eps"], config["hidden_act"], config["drop_path_rate"]) == (1e-6, "gelu", 0.1)
        assert config["id2label"] == {str(index): name for index, name in enumerate(NAMES)}
        assert config["label2id"] == {name: index for index, name in enumerate(NAMES)}
        assert "problem_type" not in config
        processor = read(tmp_path / "it", "preprocessor_config.json")
        assert (processor["image_mean"], processor["image_std"]) == ([0.5, 0.4, 0.3], [0.25, 0.5, 0.125])
        assert (processor["size"], processor["crop_pct"], processor["resample"]) == ({"shortest_edge": 64}, 0.875, 3)
        again = restore_model(str(tmp_path / "it" / "model.safetensors"))
        np.testing.assert_array_equal(again(images()), model(images()))
        assert (again.class_names, again.image_size, again.resize) == (NAMES, 64, "crop")

    def test_timm(self, tmp_path):
        model = classifier(image_size=64, resize="squash", **STATISTICS)
        keras_cnv2.save_pretrained(model, tmp_path / "it", "timm")
        config = read(tmp_path / "it", "config.json")
        pretrained = config.pop("pretrained_cfg")
        assert config == {
            "architecture": "convnextv2_tiny",
            "num_classes": 5,
            "num_features": 32,
            "global_pool": "avg",
            "label_names": [*NAMES],
            "model_args": {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]},
        }
        assert (pretrained["mean"], pretrained["std"]) == ([0.5, 0.4, 0.3], [0.25, 0.5, 0.125])
        assert (pretrained["input_size"], pretrained["num_classes"]) == ([3, 64, 64], 5)
        assert (pretrained["crop_pct"], pretrained["crop_mode"]) == (1.0, "squash")
        again = restore_model(str(tmp_path / "it" / "model.safetensors"))
        np.testing.assert_array_equal(again(images()), model(images()))

    def test_keras(self, tmp_path):
        """Also models that other libraries have no form for."""
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        for number, model in enumerate((shared_classifier(), keras.Sequential([backbone(), *head]))):
            keras_cnv2.save_pretrained(model, tmp_path / str(number), "keras")
            assert {path.name for path in (tmp_path / str(number)).iterdir()} == {"README.md", "model.keras"}
            again = keras.saving.load_model(tmp_path / str(number) / "model.keras")
            np.testing.assert_array_equal(again(images()), model(images()))

    def test_published_size(self):
        config = timm.config(facts_of(keras_cnv2.ConvNeXtV2Atto()))
        assert config["architecture"] == "convnextv2_atto"
        assert "model_args" not in config
        assert config["label_names"] == [*imagenet_classes()]

    def test_classes_without_names(self):
        facts = facts_of(shared_classifier(class_names=None))
        assert transformers.config(facts)["id2label"] == {str(index): f"LABEL_{index}" for index in range(5)}
        assert "label_names" not in timm.config(facts)

    def test_independent_classes(self):
        facts = facts_of(shared_classifier(classifier_activation="sigmoid"))
        assert transformers.config(facts)["problem_type"] == "multi_label_classification"


class TestReading:
    """`from_pretrained` builds the same model again."""

    @pytest.mark.parametrize("layout", ["transformers", "timm", "keras"])
    @pytest.mark.parametrize(
        "arguments",
        [
            {"resize": "crop", **STATISTICS},
            {"resize": "squash", "classifier_activation": "sigmoid"},
            {"resize": 0.9, "classifier_activation": None, "class_names": None},
            {"image_size": 384, "resize": "crop", "input_shape": (None, None, 2)},
        ],
    )
    def test_classifiers(self, layout, arguments, tmp_path):
        model = classifier(**{**SHALLOW, "image_size": 64, **arguments})
        keras_cnv2.save_pretrained(model, tmp_path / "it", layout)
        again = keras_cnv2.from_pretrained(tmp_path / "it")
        for name in ("class_names", "image_size", "resize", "depths", "dims"):
            assert getattr(again, name) == getattr(model, name), name
        found, given = (channel_statistics(m.input_shape[-1], m.mean, m.std) for m in (again, model))
        np.testing.assert_allclose(found, given)
        batch = images()[..., : model.input_shape[-1]]
        np.testing.assert_allclose(again(batch), model(batch), atol=1e-6)

    def test_epsilon(self, tmp_path):
        model = classifier(**SHALLOW, norm_epsilon=1e-3)
        keras_cnv2.save_pretrained(model, tmp_path / "it")
        assert read(tmp_path / "it", "config.json")["layer_norm_eps"] == 1e-3
        again = keras_cnv2.from_pretrained(tmp_path / "it")
        np.testing.assert_allclose(again(images()), model(images()), atol=1e-6)
        with pytest.raises(ValueError, match="the same epsilon in all norms.*Received: norm_epsilon=0.001"):
            keras_cnv2.save_pretrained(model, tmp_path / "timm", "timm")

    @pytest.mark.parametrize("layout", ["transformers", "timm", "keras"])
    def test_encoders(self, layout, tmp_path):
        models = [backbone(), classifier(include_top=False, class_names=None, pooling="avg")]
        if layout == "transformers":
            models.append(backbone(pyramid_norms=True, out_levels=["P3", "P5"]))
        else:
            models.append(backbone(output_stride=16))
        for number, model in enumerate(models):
            keras_cnv2.save_pretrained(model, tmp_path / str(number), layout)
            again = keras_cnv2.from_pretrained(tmp_path / str(number))
            assert type(again) is type(model)
            received, expected = (keras.tree.flatten(each(images())) for each in (again, model))
            for ours, theirs in zip(received, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_configuration_alone(self, tmp_path):
        """Without this package's entry in the file of weights, as other programs write it."""
        model = backbone(output_stride=8)
        keras_cnv2.save_pretrained(model, tmp_path / "it", "timm")
        write_tensors(tmp_path / "it" / "model.safetensors", keras_cnv2.state_dict(model, "timm"), {"format": "pt"})
        again = keras_cnv2.from_pretrained(tmp_path / "it")
        assert again.output_stride == 8
        np.testing.assert_allclose(again(images()), model(images()), rtol=1e-5)


class TestResizing:
    @pytest.mark.parametrize(
        ("size", "resize", "processor", "height", "crop_pct"),
        [
            (224, "crop", "ConvNextImageProcessor", {"shortest_edge": 224}, 0.875),
            (384, "squash", "ConvNextImageProcessor", {"shortest_edge": 384}, 0.875),
            (224, "squash", "ViTImageProcessor", {"height": 224, "width": 224}, None),
            (384, "crop", "BitImageProcessor", {"shortest_edge": 438}, None),
            (224, 0.95, "ConvNextImageProcessor", {"shortest_edge": 224}, 0.95),
            (384, 0.95, "BitImageProcessor", {"shortest_edge": 404}, None),
        ],
    )
    def test_processor(self, size, resize, processor, height, crop_pct):
        found = transformers.preprocessor_config(facts_of(shared_backbone(), size, resize))
        assert (found["image_processor_type"], found["size"], found.get("crop_pct")) == (processor, height, crop_pct)

    def test_images_that_are_not_square(self):
        facts = facts_of(classifier(**SHALLOW, input_shape=(64, 96, 3)))
        assert transformers.config(facts)["image_size"] == [64, 96]
        assert transformers.preprocessor_config(facts)["size"] == {"height": 64, "width": 96}
        assert timm.config(facts)["pretrained_cfg"]["input_size"] == [3, 64, 96]

    def test_other_channels(self):
        facts = facts_of(keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, input_shape=(None, None, 2)))
        assert transformers.config(facts)["num_channels"] == 2
        assert len(transformers.preprocessor_config(facts)["image_mean"]) == 2


class TestEncoders:
    @pytest.mark.parametrize(
        ("make", "architecture", "pool"),
        [
            (lambda: backbone(), "ConvNextV2Model", ""),
            (lambda: classifier(include_top=False, class_names=None, pooling="avg"), "ConvNextV2Model", "avg"),
            (lambda: classifier(include_top=False, class_names=None, pooling="max"), None, "max"),
            (lambda: backbone(pyramid_norms=True), "ConvNextV2Backbone", None),
        ],
    )
    def test_layouts(self, make, architecture, pool, tmp_path):
        model = make()
        for layout, fits in (("transformers", architecture), ("timm", pool)):
            folder = tmp_path / layout
            if fits is None:
                with pytest.raises(ValueError, match="give layout='t?.*Received: p"):
                    keras_cnv2.save_pretrained(model, folder, layout)
                assert not folder.exists()
                continue
            keras_cnv2.save_pretrained(model, folder, layout)
            config = read(folder, "config.json")
            assert "id2label" not in config
            assert "label_names" not in config
            found = config["architectures"] == [fits] if layout == "transformers" else config["global_pool"] == fits
            assert found
            assert "pipeline_tag: image-feature-extraction" in (folder / "README.md").read_text()


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "layout", "message"),
        [
            (lambda: shared_classifier(), "torch", "layout must be one of.*Received: layout='torch'"),
            (lambda: shared_classifier(classifier_activation="relu"), "timm", "no place for a classifier's activation"),
            (lambda: shared_classifier(stem_stride=2), "timm", "no ConvNeXt V2 with a stem of stride 2"),
            (lambda: keras.Sequential([backbone(), keras.layers.Flatten()]), "timm", "layout='keras' holds any model"),
            (lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]), "keras", "must hold an encoder"),
        ],
    )
    def test_models(self, make, layout, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            keras_cnv2.save_pretrained(make(), tmp_path / "it", layout)
        assert [*tmp_path.iterdir()] == []

    def test_nothing_half_written(self, tmp_path, monkeypatch):
        def fails(*_):
            raise OSError("full")

        monkeypatch.setattr(save, "card_of", fails)
        with pytest.raises(OSError, match="full"):
            keras_cnv2.save_pretrained(shared_classifier(), tmp_path / "it")
        assert [*tmp_path.iterdir()] == []

    def test_overwrite(self, tmp_path):
        keras_cnv2.save_pretrained(shared_classifier(), tmp_path / "it", "timm")
        with pytest.raises(FileExistsError, match="something already"):
            keras_cnv2.save_pretrained(shared_classifier(), tmp_path / "it")
        keras_cnv2.save_pretrained(shared_classifier(), tmp_path / "it", overwrite=True)
        assert (tmp_path / "it" / "preprocessor_config.json").exists()
        (tmp_path / "it" / "thesis.txt").touch()
        with pytest.raises(FileExistsError, match="something already"):
            keras_cnv2.save_pretrained(shared_classifier(), tmp_path / "it", overwrite=True)


class TestCard:
    def test_origin_and_licence(self):
        model = shared_classifier(name="published")
        row = find_checkpoint("convnextv2_atto.fcmae")
        model.pretrained = {"repository": row.repository, "commit": "a" * 40, "file": row.file}
        card = card_of(model, "timm", facts_of(model))
        assert "license: cc-by-nc-4.0\nlibrary_name: timm\npipeline_tag: image-classification\n" in card
        assert f'base_model: "{row.repository}"' in card
        assert "whose licence is CC BY-NC 4.0" in card
        assert "license: apache-2.0" in card_of(model, "timm", facts_of(model), "apache-2.0")

    def test_unknown(self):
        card = card_of(shared_classifier(), "keras")
        assert "license" not in card
        assert "base_model" not in card
        assert "library_name: keras\n" in card

    def test_front_matter_quotes(self):
        assert 'license: "a: b\\n---"' in front_matter("keras", "image-classification", "a: b\n---")
