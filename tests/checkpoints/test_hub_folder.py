"""Folders and repositories in transformers' and timm's form, and what their configuration settles."""

import json

import keras
import numpy as np
import pytest
from huggingface_hub import constants

import keras_cnv2
from keras_cnv2 import CheckpointError
from keras_cnv2.checkpoints.metadata import metadata_of
from keras_cnv2.restore import restore_model
from tests.checkpoints.hub_folders import (
    CARD,
    MEAN,
    NAMES,
    PREPROCESSOR,
    SIZE,
    STD,
    as_bytes,
    new_classifier,
    sharded,
    timm_folder,
    transformers_folder,
    write,
)
from tests.checkpoints.hub_server import COMMIT, HubServer, forget_connections, point_to

pytestmark = pytest.mark.lowest

FORMS = {"transformers": transformers_folder, "timm": timm_folder}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def source():
    """What the folders hold: weights that are far from their initial values, so that a wrong epsilon is seen."""
    model = new_classifier(norm_epsilon=1e-12, mean=MEAN, std=STD)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, and an empty cache. `hub.hold(name, files)` makes a repository."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer({}).running() as server:
        point_to(server.url, monkeypatch)
        forget_connections()
        server.hold = lambda name, files: server.files.update({(name, file): body for file, body in files.items()})
        yield server
        forget_connections()


def assert_settled(model, source, epsilon=1e-12):
    """Asserts that a model has all that the configurations say, and computes what their model computes."""
    assert (model.depths, model.dims, model.classes) == (SIZE["depths"], SIZE["dims"], 3)
    assert (model.class_names, model.image_size, model.resize) == (NAMES, 96, 0.95)
    np.testing.assert_allclose((model.mean, model.std), (MEAN, STD))
    assert model.norm_epsilon == epsilon
    if epsilon == 1e-12:
        np.testing.assert_allclose(np.asarray(model(IMAGES)), np.asarray(source(IMAGES)), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_folder(form, source, tmp_path):
    folder = write(tmp_path / "it", FORMS[form](source))
    epsilon = 1e-12 if form == "transformers" else 1e-6  # timm's own
    for given in (folder, str(folder), folder / "model.safetensors"):
        assert_settled(keras_cnv2.from_pretrained(given), source, epsilon)
    model = keras_cnv2.ConvNeXtV2(**SIZE, weights=folder)
    assert_settled(model, source, epsilon)
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SIZE, weights=folder)
    assert backbone.mean == model.mean
    again = keras_cnv2.ConvNeXtV2.from_config(model.get_config())
    assert metadata_of(again) == metadata_of(model)
    keras_cnv2.save_checkpoint(model, tmp_path / "ours.safetensors")
    assert_settled(restore_model(tmp_path / "ours.safetensors"), source, epsilon)


@pytest.mark.parametrize("files", ["safetensors", "bin", "shards"])
def test_repository(files, source, hub, caplog):
    held = transformers_folder(source)
    if files == "shards":
        held = sharded(held)
    if files == "bin":
        torch = pytest.importorskip("torch")
        held["pytorch_model.bin"] = saved_by(torch, keras_cnv2.state_dict(source, "transformers"))
        del held["model.safetensors"]
    hub.hold("someone/finetuned", held)
    model = keras_cnv2.from_pretrained("hf://someone/finetuned")
    assert_settled(model, source)
    assert model.pretrained["repository"] == "someone/finetuned"
    assert model.pretrained["commit"] == COMMIT
    (line,) = [text for text in caplog.messages if "licence" in text]
    assert line.startswith("hf://someone/finetuned: the licence of these weights is apache-2.0; card: ")
    asked = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert asked[0].endswith("/resolve/main/config.json")
    assert all(f"/resolve/{COMMIT}/" in path for path in asked[2:])  # files of one commit
    before = len(hub.ranges)
    assert_settled(keras_cnv2.ConvNeXtV2(**SIZE, weights=f"hf://someone/finetuned@{COMMIT}"), source)
    assert len(hub.ranges) == before  # nothing is downloaded again


def saved_by(torch, tensors):
    import io

    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, file := io.BytesIO())
    return file.getvalue()


def test_metas_own_weights(source, hub):
    """Their config.json has transformers' epsilon, with which they were not trained."""
    hub.hold("facebook/convnextv2-mini", transformers_folder(source))
    assert keras_cnv2.from_pretrained("hf://facebook/convnextv2-mini").norm_epsilon == 1e-6


def test_keras_repository(source, hub, tmp_path):
    source.save(tmp_path / "model.keras")
    hub.hold("someone/ours", {"model.keras": (tmp_path / "model.keras").read_bytes(), "README.md": CARD.encode()})
    model = keras_cnv2.from_pretrained("hf://someone/ours")
    assert (model.mean, model.norm_epsilon) == (MEAN, 1e-12)
    np.testing.assert_array_equal(model(IMAGES), source(IMAGES))
    folder = write(tmp_path / "ours", {"model.keras": (tmp_path / "model.keras").read_bytes()})
    np.testing.assert_array_equal(keras_cnv2.from_pretrained(folder)(IMAGES), source(IMAGES))


def test_no_configuration(source, tmp_path):
    """As `save_checkpoint` writes it: the file's own metadata."""
    keras_cnv2.save_checkpoint(source, tmp_path / "model.safetensors")
    model = keras_cnv2.from_pretrained(tmp_path)
    assert (model.mean, model.norm_epsilon, model.class_names) == (MEAN, 1e-12, None)


def test_offline_with_what_is_in_the_cache(source, hub, monkeypatch):
    hub.hold("someone/finetuned", timm_folder(source))
    keras_cnv2.from_pretrained("hf://someone/finetuned")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_connections()
    before = len(hub.requests)
    assert_settled(keras_cnv2.from_pretrained("hf://someone/finetuned"), source, 1e-6)
    assert len(hub.requests) == before
    with pytest.raises(CheckpointError, match="they are not in the cache, and HF_HUB_OFFLINE forbids"):
        keras_cnv2.from_pretrained("hf://someone/other")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://someone/missing", "the hub has no such repository or file"),
        ("hf://someone", "given as hf://owner/name"),
        ("hf://some one/it", "given as hf://owner/name"),
        ("hf://../it", "given as hf://owner/name"),
        ("hf://someone/it@../../x", "given as hf://owner/name"),
        ("hf://someone/it/file.bin", "given as hf://owner/name"),
    ],
)
def test_no_such_repository(source, message, hub):
    with pytest.raises(CheckpointError, match=message):
        keras_cnv2.from_pretrained(source)


def test_nothing_to_load(hub, tmp_path):
    hub.hold("someone/empty", {"README.md": b"nothing"})
    with pytest.raises(CheckpointError, match="There are no weights in this folder or repository"):
        keras_cnv2.from_pretrained("hf://someone/empty")
    with pytest.raises(CheckpointError, match="No published weights of this name"):
        keras_cnv2.from_pretrained(str(tmp_path))


class TestWhatFilesSettle:
    @pytest.fixture(scope="class")
    def metadata(self, source, tmp_path_factory):
        """Returns a function from changes of the files to the metadata that they give, without building a model."""
        from keras_cnv2.checkpoints.source import fetch_weights, open_weights

        def of(files):
            folder = write(tmp_path_factory.mktemp("it"), files)
            with open_weights(fetch_weights(folder)) as contents:
                return contents.metadata

        return of

    @pytest.mark.parametrize(
        ("preprocessor", "expected"),
        [
            ({"size": {"shortest_edge": 384}}, (384, "squash")),
            ({"size": 128, "crop_pct": 0.875}, (128, "crop")),  # the form of old versions
            ({"size": {"height": 64, "width": 64}, "image_processor_type": "ViTImageProcessor"}, (64, "squash")),
            (
                {
                    "size": {"shortest_edge": 128},
                    "image_processor_type": "CLIPImageProcessor",
                    "do_center_crop": True,
                    "crop_size": {"height": 96, "width": 96},
                },
                (96, 0.75),
            ),
            ({"do_resize": False}, (224, None)),
        ],
    )
    def test_framing_by_transformers(self, preprocessor, expected, source, metadata):
        found = metadata(transformers_folder(source, preprocessor={**PREPROCESSOR, **preprocessor}))
        assert (found["image_size"], found.get("resize")) == expected

    @pytest.mark.parametrize(
        ("pretrained", "expected"),
        [
            ({"crop_pct": 1.0, "crop_mode": "squash", "input_size": [3, 384, 384]}, (384, "squash")),
            ({"crop_pct": 0.875}, (96, "crop")),
            ({"crop_pct": 1.0}, (96, 1.0)),
        ],
    )
    def test_framing_by_timm(self, pretrained, expected, source, metadata):
        found = metadata(timm_folder(source, pretrained=pretrained))
        assert (found["image_size"], found["resize"]) == expected

    @pytest.mark.parametrize(
        ("preprocessor", "mean", "std"),
        [
            ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
            ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51] * 3}, (0.5,) * 3, (0.2,) * 3),
            ({"rescale_factor": 2 / 255, "image_mean": [1, 1, 1], "image_std": [0.5] * 3}, (0.5,) * 3, (0.25,) * 3),
            ({"image_mean": 0.5, "image_std": [0.25]}, (0.5,) * 3, (0.25,) * 3),
        ],
    )
    def test_statistics(self, preprocessor, mean, std, source, metadata):
        found = metadata(transformers_folder(source, preprocessor={**PREPROCESSOR, **preprocessor}))
        np.testing.assert_allclose((found["mean"], found["std"]), (mean, std), rtol=1e-6)

    def test_imagenets_statistics_are_the_default(self, source, metadata):
        usual = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        assert "mean" not in metadata(transformers_folder(source, preprocessor={**PREPROCESSOR, **usual}))

    def test_no_names(self, source, metadata):
        labels = {"id2label": {str(number): f"LABEL_{number}" for number in range(3)}}
        assert "class_names" not in metadata(transformers_folder(source, labels))
        assert "class_names" not in metadata(timm_folder(source, {"label_names": None}))

    def test_kind_of_classes(self, source, metadata):
        found = metadata(transformers_folder(source, {"problem_type": "multi_label_classification"}))
        assert found["classifier_activation"] == "sigmoid"

    def test_no_preprocessor(self, source, metadata):
        found = metadata(transformers_folder(source, preprocessor=None))
        assert found["image_size"] == 224
        assert "mean" not in found

    def test_old_timm(self, source, metadata):
        """Before version 0.8, the fields of "pretrained_cfg" stood in the object itself."""
        files = timm_folder(source)
        config = json.loads(files["config.json"])
        old = {**config.pop("pretrained_cfg"), **config, "labels": [*NAMES]}
        del old["label_names"], old["label_descriptions"]
        found = metadata({**files, "config.json": as_bytes(old)})
        assert (found["class_names"], found["mean"]) == (NAMES, MEAN)

    def test_timms_models_in_transformers(self, source, metadata):
        """`TimmWrapperForImageClassification`."""
        from safetensors.numpy import save

        files = timm_folder(source, {"model_type": "timm_wrapper"})
        tensors = {f"timm_model.{name}": value for name, value in keras_cnv2.state_dict(source, "timm").items()}
        assert metadata({**files, "model.safetensors": save(tensors)})["mean"] == MEAN

    def test_grey_images_with_the_statistics_of_rgb(self, metadata, caplog):
        """Trainers who change the channels leave the rest of timm's configuration as it was."""
        found = metadata(timm_folder(new_classifier(input_shape=(None, None, 1))))
        assert "mean" not in found
        assert "not for 1 channels: the default ones are taken" in caplog.text

    def test_code_is_named_and_not_run(self, source, metadata, caplog):
        metadata(transformers_folder(source, {"auto_map": {"AutoModel": "modeling.Evil"}}))
        assert "none of it is run" in caplog.text

    @pytest.mark.parametrize(
        ("card", "licence"),
        [
            ("---\nlicense: other\nlicense_name: mine\n---\n", "mine"),
            ("---\ntags: []\n---\nlicense: no\n", "not named"),
            ("# no top\n", "not named"),
            ('---\nlicense: "mit"\n---\n', "mit"),
        ],
    )
    def test_licence(self, card, licence, source, metadata, caplog):
        metadata(transformers_folder(source, card=card))
        assert f"the licence of these weights is {licence}; card: " in caplog.text


def test_fewer_channels_than_the_weights(source, tmp_path):
    """The stem's kernel is summed, and the statistics are averaged."""
    folder = write(tmp_path / "it", transformers_folder(source))
    model = keras_cnv2.ConvNeXtV2(**SIZE, weights=folder, input_shape=(None, None, 1))
    np.testing.assert_allclose(model.mean, (0.4,))


def test_other_classes(source, tmp_path):
    folder = write(tmp_path / "it", transformers_folder(source))
    model = keras_cnv2.ConvNeXtV2(**SIZE, weights=folder, classes=7)
    assert (model.class_names, model.mean) == (None, MEAN)


def test_backbones_of_transformers(source, tmp_path):
    """`ConvNextV2Model` has a final norm, `ConvNextV2Backbone` one for each level; neither has classes."""
    files = transformers_folder(source, {"architectures": ["ConvNextV2Model"]})
    features = new_classifier(include_top=False, pooling="avg")
    pyramid = keras_cnv2.ConvNeXtV2Backbone(**SIZE, pyramid_norms=True)
    for number, (model, kind) in enumerate(((features, "ConvNeXtV2"), (pyramid, "ConvNeXtV2Backbone"))):
        from safetensors.numpy import save

        tensors = save(keras_cnv2.state_dict(model, "transformers"))
        found = keras_cnv2.from_pretrained(write(tmp_path / str(number), {**files, "model.safetensors": tensors}))
        assert type(found).__name__ == kind
        assert found.mean == MEAN


TRANSFORMERS_FAULTS = [
    ({"model_type": "convnext"}, "model_type must be 'convnextv2'"),
    ({"model_type": 3}, "model_type must be"),
    ({"hidden_act": "relu"}, r"hidden_act must be one of gelu.*Received: hidden_act='relu'"),
    ({"depths": [1, 1, 1, 1]}, r"describes another model .*depths \(1, 1, 1, 1\), in the weights \(1, 2, 1, 1\)"),
    ({"depths": [10**9, 1, 1, 1]}, "describes another model"),
    ({"depths": [1, 2, 1]}, "depths must be four positive ints"),
    ({"depths": {"a": 1}}, "depths must be four positive ints"),
    ({"hidden_sizes": [4, 6, 8, -10]}, "hidden_sizes must be four positive ints"),
    ({"hidden_sizes": [4, 6, 8, 11]}, r"describes another model .*dims"),
    ({"patch_size": 3}, "patch_size must be one of 4, 2, 1"),
    ({"patch_size": 2}, r"describes another model .*stem_stride 2, in the weights 4"),
    ({"num_channels": 4}, r"describes another model .*channels 4, in the weights 3"),
    ({"num_channels": True}, "num_channels must be a positive int"),
    ({"id2label": {"0": "a", "1": "b"}}, r"describes another model .*classes 2, in the weights 3"),
    ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "id2label must be an object with a name for each"),
    ({"id2label": {"0": "a", "1": "b", "2": None}}, "id2label must be"),
    ({"id2label": ["a", "b", "c"]}, "id2label must be"),
    ({"layer_norm_eps": 0}, "layer_norm_eps must be a number between 0 and 1"),
    ({"layer_norm_eps": "1e-6"}, "layer_norm_eps must be"),
    ({"problem_type": "other"}, "problem_type must be one of"),
]
PREPROCESSOR_FAULTS = [
    ({"image_mean": [0.5, "a", 0.5]}, "image_mean must be numbers, one for each channel"),
    ({"image_mean": []}, "image_mean must be"),
    ({"image_std": [0.5, 0, 0.5]}, "image_std must be positive numbers"),
    ({"image_std": None}, "image_std must be given, as its counterpart is"),
    ({"size": {"shortest_edge": 10**9}}, "shortest_edge must be a positive int, at most 4096"),
    ({"size": {"shortest_edge": "96"}}, "shortest_edge must be"),
    ({"crop_pct": 0}, r"crop_pct must be a number in \(0, 1\]"),
    ({"crop_pct": 1.5}, "crop_pct must be"),
    ({"do_resize": "yes"}, "do_resize must be true or false"),
    ({"rescale_factor": -1}, "rescale_factor must be a positive number"),
    ({"do_flip_channel_order": True}, "do_flip_channel_order must be false"),
]
TIMM_FAULTS = [
    ({"architecture": "resnet50"}, {}, "architecture must be convnextv2_"),
    ({"architecture": None}, {}, "architecture must be convnextv2_"),
    ({"architecture": "convnextv2_enormous"}, {}, "architecture must be convnextv2_"),
    ({"model_args": {}, "num_features": 320}, {}, r"describes another model .*depths .*dims"),
    ({"model_args": []}, {}, "model_args must be an object"),
    ({"model_args": {"act_layer": "relu"}, "num_features": 320}, {}, "act_layer must be one of gelu"),
    ({"model_args": {"kernel_sizes": 3}, "num_features": 320}, {}, "kernel_sizes must be one of 7"),
    ({"num_features": 11}, {}, "num_features must be that of convnextv2_atto, 10"),
    ({"num_classes": 5, "label_names": None}, {}, r"describes another model .*classes 5, in the weights 3"),
    ({"num_classes": 0}, {}, r"describes another model .*classes 0, in the weights 3"),
    ({"num_classes": "3"}, {}, "num_classes must be an int"),
    ({"global_pool": "max"}, {}, "global_pool must be one of avg"),
    ({"model_args": {"patch_size": 2}, "num_features": 320}, {}, "patch_size must be one of 4, 1"),
    ({"label_names": ["a"]}, {}, "label_names must be a list of 3 names"),
    ({"label_names": [1, 2, 3]}, {}, "label_names must be a list of 3 names"),
    ({}, {"mean": [0.5, 0.5, float("1e400")]}, "must hold a JSON object"),
    ({}, {"std": [-1, 1, 1]}, "std must be positive numbers"),
    ({}, {"std": None}, "std must be given"),
    ({}, {"input_size": 96}, "input_size must be channels, height and width"),
    ({}, {"input_size": [3, 96, 0]}, "input_size must be a positive int"),
    ({}, {"crop_mode": "other"}, "crop_mode must be one of"),
    ({}, {"crop_pct": "1"}, "crop_pct must be a number"),
]
RAW_FAULTS = [
    (b"", "must hold a JSON object"),
    (b"[1]", "must hold a JSON object.*list in place of an object"),
    (b"{", "must hold a JSON object"),
    (b'{"model_type": NaN}', "must hold a JSON object.*the number NaN"),
    (b"\xff\xfe", "must hold a JSON object"),
    (b"[" * 10**6, "must hold a JSON object"),
    (b"{}", "neither of transformers .* nor of timm"),
    (b'{"registered_name": "keras_hub>ConvNeXtBackbone"}', "of a Keras or KerasHub model"),
]


class TestFaults:
    """Each is one clear error, and no model is built."""

    @pytest.fixture(autouse=True)
    def nothing_is_built(self, monkeypatch, source):
        def fail(*args, **kwargs):
            raise AssertionError("a model is built")

        monkeypatch.setattr("keras_cnv2.restore.ConvNeXtV2", fail)

    @pytest.fixture(scope="class")
    def good(self, source):
        return {"transformers": transformers_folder(source), "timm": timm_folder(source)}

    def refused(self, folder, files, message):
        with pytest.raises(CheckpointError, match=message) as caught:
            keras_cnv2.from_pretrained(write(folder, files))
        assert str(folder) in str(caught.value)
        assert len(str(caught.value)) < 2000

    @pytest.mark.parametrize(("changes", "message"), TRANSFORMERS_FAULTS)
    def test_of_transformers(self, changes, message, good, tmp_path):
        files = good["transformers"]
        config = {**json.loads(files["config.json"]), **changes}
        self.refused(tmp_path / "it", {**files, "config.json": as_bytes(config)}, message)

    @pytest.mark.parametrize(("changes", "message"), PREPROCESSOR_FAULTS)
    def test_of_a_preprocessor(self, changes, message, good, tmp_path):
        files = good["transformers"]
        preprocessor = {**PREPROCESSOR, **changes}
        self.refused(tmp_path / "it", {**files, "preprocessor_config.json": as_bytes(preprocessor)}, message)

    @pytest.mark.parametrize(("changes", "pretrained", "message"), TIMM_FAULTS)
    def test_of_timm(self, changes, pretrained, message, good, tmp_path):
        files = good["timm"]
        config = json.loads(files["config.json"])
        config = {**config, **changes, "pretrained_cfg": {**config["pretrained_cfg"], **pretrained}}
        self.refused(tmp_path / "it", {**files, "config.json": as_bytes(config)}, message)

    @pytest.mark.parametrize(("content", "message"), RAW_FAULTS)
    def test_of_the_file(self, content, message, good, tmp_path):
        self.refused(tmp_path / "it", {**good["timm"], "config.json": content}, message)

    def test_head_that_is_missing(self, tmp_path):
        headless = transformers_folder(new_classifier(include_top=False, pooling="avg"))
        self.refused(tmp_path / "it", headless, r"describes another model .*classes 3, in the weights 0")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weight_map": {"a": "../../other.safetensors"}}, "to files next to it"),
            ({"weight_map": {"a": "/etc/passwd"}}, "to files next to it"),
            ({"weight_map": {"a": 3}}, "to files next to it"),
            ({"weight_map": []}, "to files next to it"),
            ({}, "to files next to it"),
            ({"weight_map": {"a": "model-00003-of-00002.safetensors"}}, "names files that are missing"),
            ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "name different tensors"),
        ],
    )
    def test_of_an_index(self, change, message, good, tmp_path):
        files = sharded(good["transformers"])
        self.refused(tmp_path / "it", {**files, "model.safetensors.index.json": as_bytes(change)}, message)

    def test_keras_model_with_code(self, tmp_path):
        model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x)])
        model.save(tmp_path / "model.keras")
        with pytest.raises(CheckpointError):
            keras_cnv2.from_pretrained(tmp_path)


def test_missing_file_of_an_index(source, tmp_path):
    folder = write(tmp_path / "it", sharded(transformers_folder(source)))
    assert_settled(keras_cnv2.from_pretrained(folder / "model.safetensors.index.json"), source)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a file of the index is missing\. Received: model-00002"):
        keras_cnv2.from_pretrained(folder / "model.safetensors.index.json")


def test_lost_connection_is_no_missing_file(source, hub, monkeypatch):
    """Without its preprocessor_config.json the model would silently normalise images in another way."""
    monkeypatch.setattr("keras_cnv2.checkpoints.hub.time.sleep", lambda seconds: None)

    class Breaking(dict):
        """The hub is down once it was asked for anything but config.json."""

        def __contains__(self, place):
            hub.down = place[1] != "config.json"
            return super().__contains__(place)

    hub.files = Breaking({("someone/it", name): body for name, body in transformers_folder(source).items()})
    with pytest.raises(CheckpointError, match="Could not get the weights hf://someone/it"):
        keras_cnv2.from_pretrained("hf://someone/it")
