import logging
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_cnv2.images.classes import numbered
from tests.training.data.samples import assert_same, take
from tests.training.data.scenes.small import recipe, scene, write, write_folder
from training.data.draws import Draws
from training.data.scenes.augment import random_example
from training.data.scenes.folders import SceneFolder
from training.data.scenes.sources import open_scenes
from training.data.scenes.tfds import TfdsScenes
from training.data.shares import Share
from training.errors import DataError, RecipeError

pytestmark = pytest.mark.usefixtures("quick_pictures")

ADE20K = ("images/{split}", "annotations/{split}")


@pytest.fixture
def folder(tmp_path):
    """Ten training pictures of three classes, three of validation; without a list of the classes."""
    return write_folder(tmp_path)


class TestLayouts:
    @pytest.mark.parametrize(
        ("layout", "names"),
        [
            (("{split}", "{split}annot"), ("train", "test")),
            (ADE20K, ("training", "validation")),
            (("images/{split}", "labels/{split}"), ("train", "val")),
            (("{split}/images", "{split}/masks"), ("train", "valid")),
        ],
    )
    def test_splits(self, tmp_path, layout, names):
        source = SceneFolder(write_folder(tmp_path, 4, 2, layout, names), classes=3)
        assert (source.size, source.validation_size, source.class_names) == (4, 2, numbered(3))

    def test_folders_within(self, tmp_path):
        write_folder(tmp_path, 2, 1, ("images/{split}/a/b", "annotations/{split}/a/b"))
        write(tmp_path / "images/train/0.png", tmp_path / "annotations/train/0.png", 3)
        assert SceneFolder(tmp_path, classes=3).size == 3

    def test_named_split(self, folder):
        for kind in ("", "annot"):
            shutil.copytree(folder / f"train{kind}", folder / f"test{kind}")
        assert SceneFolder(folder, 3).validation_size == 3
        assert SceneFolder(folder, 3, validation="test").validation_size == 10
        with pytest.raises(DataError, match="There is no split other with pictures and labels"):
            SceneFolder(folder, 3, validation="other")

    @pytest.mark.parametrize("layout", [("images", "labels"), ("train", "trainannot")])
    def test_share_is_held_out(self, tmp_path, layout):
        write_folder(tmp_path, 10, 0, layout)
        sizes = {0.0: (10, 0), 0.2: (8, 2), 1.0: (0, 10)}
        for share, expected in sizes.items():
            source = SceneFolder(tmp_path, 3, validation_share=share)
            assert (source.size, source.validation_size) == expected

    def test_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"pictures and labels. Received: .*nowhere"):
            SceneFolder(tmp_path / "nowhere")
        with pytest.raises(DataError, match="data must have folders of pictures and of labels: train and trainannot"):
            SceneFolder(tmp_path)
        for name in ("train", "trainannot"):
            (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=r"no pictures below this folder. Received: .*train"):
            SceneFolder(tmp_path)

    def test_picture_without_labels(self, folder):
        (folder / "trainannot" / "7.png").unlink()
        (folder / "trainannot" / "3.png").rename(folder / "trainannot" / "3.jpg")
        message = r"2 pictures have no PNG of the same name in .*trainannot: .*3.png, .*7.png. Received: 10 pictures, 8"
        with pytest.raises(DataError, match=message):
            SceneFolder(folder)


class TestClasses:
    def test_counted(self, folder, caplog):
        caplog.set_level(logging.INFO)
        assert SceneFolder(folder).class_names == numbered(3)
        assert "3 classes in the labels" in caplog.text
        assert SceneFolder(folder, ignore_label=2).class_names == numbered(256)
        assert SceneFolder(folder, reduce_zero_label=True).class_names == numbered(2)

    def test_class_that_is_ignored_is_told(self, folder, caplog):
        SceneFolder(folder, 3, ignore_label=3)
        assert not caplog.text
        SceneFolder(folder, 3, ignore_label=2)
        assert "class 2 is neither trained nor measured: it is the ignore_label" in caplog.text

    def test_only_what_is_ignored(self, tmp_path):
        write_folder(tmp_path, 2, 0)
        for path in (tmp_path / "trainannot").iterdir():
            Image.fromarray(np.uint8([[0, 255]])).save(path)
        with pytest.raises(DataError, match="no classes in the labels, only what is ignored"):
            SceneFolder(tmp_path, reduce_zero_label=True)

    def test_file(self, folder, tmp_path):
        (folder / "classes.txt").write_text("road\n car \n\nsky\n")
        assert SceneFolder(folder).class_names == ("road", "car", "sky")
        assert SceneFolder(folder, classes=4).class_names == numbered(4)
        assert SceneFolder(folder, classes=("a", "b", "c")).class_names == ("a", "b", "c")
        (tmp_path / "other.txt").write_text("x\ny\nz\n")
        assert SceneFolder(folder, classes=str(tmp_path / "other.txt")).class_names == ("x", "y", "z")
        with pytest.raises(DataError, match=r"cannot be read \(No such file.*Received: .*none.txt"):
            SceneFolder(folder, classes=str(tmp_path / "none.txt"))
        with pytest.raises(DataError, match="different names"):
            SceneFolder(folder, classes=("a", "a", "b"))

    @pytest.mark.parametrize("classes", ["0", 0, ()])
    def test_no_classes(self, folder, classes):
        message = r"classes must be names, a file with one a line, or a number above 0\. Received: "
        with pytest.raises(DataError, match=message + re.escape(str(classes))):
            SceneFolder(folder, classes=classes)

    def test_file_without_classes(self, folder):
        (folder / "classes.txt").write_text("\n")
        with pytest.raises(DataError, match=r"classes must be names.*Received: .*classes\.txt"):
            SceneFolder(folder)

    def test_table_of_ade20k(self, tmp_path):
        write_folder(tmp_path, layout=ADE20K, names=("training", "validation"))
        rows = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1\t1\t1\twall", "2\t0.1\t1\t1\tbuilding, edifice"]
        (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
        assert SceneFolder(tmp_path, reduce_zero_label=True).class_names == ("wall", "building")


def files_of(folder, number):
    """A training picture and its labels."""
    pixels, labels = (np.asarray(Image.open(folder / name / f"{number}.png")) for name in ("train", "trainannot"))
    return pixels, labels.astype("int32")


SETTINGS = recipe(seed=3)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """A folder for tests that change nothing in it."""
    return write_folder(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def whole(unchanged):
    """The batches of a pass."""
    return take(SceneFolder(unchanged, 3).training(SETTINGS), 2)


class TestTraining:
    def test_examples_are_those_of_their_place(self, unchanged, whole):
        """Each is one of the pictures, changed as its place in the whole of training says."""

        @tf.function(
            input_signature=[
                tf.TensorSpec((30, 40, 3)),
                tf.TensorSpec((30, 40), tf.int32),
                tf.TensorSpec((), tf.int64),
            ],
            autograph=False,
        )
        def example(pixels, labels, place):
            return random_example(pixels, labels, SETTINGS, 255, Draws(3, 1, place))

        images, labels = whole[1]
        assert (images.shape, images.dtype) == ((4, 32, 32, 3), "float32")
        assert (labels.shape, labels.dtype) == ((4, 32, 32), "int32")
        assert {*np.unique(labels)} <= {0, 1, 2, 255}
        found = set()
        for place in range(4):
            scenes = [files_of(unchanged, number) for number in range(10)]
            possible = [example(pixels.astype("float32"), numbers, place) for pixels, numbers in scenes]
            (number,) = (n for n, (_, mapped) in enumerate(possible) if np.array_equal(mapped, labels[place]))
            np.testing.assert_allclose(images[place], possible[number][0], atol=1e-3)
            found.add(number)
        assert len(found) == 4

    @pytest.mark.slow
    def test_shares_of_two_workers_are_the_halves(self, unchanged, whole):
        source = SceneFolder(unchanged, 3)
        parts = [take(source.training(SETTINGS, share=Share(worker, 2)), 2) for worker in range(2)]
        joined = [keras.tree.map_structure(lambda *halves: np.concatenate(halves), *batch) for batch in zip(*parts)]
        assert {len(images) for part in parts for images, _ in part} == {2}
        assert_same(joined, whole)


class TestValidation:
    def test_every_picture_once_and_nothing_counts_twice(self, folder):
        batches = take(SceneFolder(folder, 3).validation(recipe(), 2), 9)
        assert [images.shape for images, *_ in batches] == [(2, 32, 32, 3)] * 2
        _, labels, weights = (np.concatenate(column) for column in zip(*batches))
        np.testing.assert_array_equal(weights, [1, 1, 1, 0])
        np.testing.assert_array_equal(labels[3], np.full((32, 32), 255))
        np.testing.assert_array_equal(labels[0, 24:], np.full((8, 32), 255))  # 30 x 40 fits as 24 x 32
        rows, columns = ((np.arange(n) * 2 + 1) * 5 // 8 for n in (24, 32))
        np.testing.assert_array_equal(labels[0, :24], scene(10)[1][rows][:, columns])

    def test_none(self, folder):
        shutil.rmtree(folder / "val")
        assert SceneFolder(folder, 3, validation_share=0.0).validation(recipe(), 2) is None

    @pytest.mark.slow
    def test_examples_are_always_the_same(self, folder):
        one, two = (SceneFolder(folder, 3).examples(recipe(), 3) for _ in range(2))
        assert [column.shape for column in one] == [(3, 32, 32, 3), (3, 32, 32)]
        assert_same(one, two)

    def test_whole_pictures(self, folder):
        found = [*SceneFolder(folder, 3).whole()]
        assert [Path(name).name for *_, name in found] == ["10.png", "11.png", "12.png"]
        for number, (pixels, labels, _) in enumerate(found):
            expected = scene(10 + number, width=40 + 4 * number)
            np.testing.assert_array_equal(pixels, expected[0])
            np.testing.assert_array_equal(labels, expected[1])

    def test_whole_pictures_of_a_worker(self, folder):
        found = [Path(name).name for *_, name in SceneFolder(folder, 3).whole(Share(0, 2))]
        assert found == ["10.png", "12.png"]

    def test_numbers_from_one_on(self, folder):
        for number, (_, labels, _) in enumerate(SceneFolder(folder, 2, reduce_zero_label=True).whole()):
            numbers = scene(10 + number, width=40 + 4 * number)[1].astype(int)
            np.testing.assert_array_equal(labels, np.where((numbers == 0) | (numbers == 255), 255, numbers - 1))

    @pytest.mark.slow
    def test_other_label_to_ignore(self, folder):
        ((_, labels, weights), *_) = take(SceneFolder(folder, 256, ignore_label=2).validation(recipe(), 4), 1)
        np.testing.assert_array_equal(weights, [1, 1, 1, 0])
        assert np.all(labels[3] == 2)
        assert np.all(labels[0, 24:] == 2)
        assert np.all(labels[0, 0] == 255)


class TestBadFiles:
    @pytest.mark.slow
    def test_damaged_ones_are_left_out(self, folder, caplog):
        (folder / "train" / "3.png").write_bytes(b"not a picture")
        (folder / "trainannot" / "4.png").write_bytes(b"not a picture")
        (folder / "valannot" / "11.png").write_bytes((folder / "valannot" / "11.png").read_bytes()[:60])
        source = SceneFolder(folder, 3, max_unreadable=0.3)
        assert {len(images) for images, _ in take(source.training(recipe()), 5)} == {4}
        assert [Path(name).name for *_, name in source.whole()] == ["10.png", "12.png"]
        for name in ("train/3.png", "train/4.png", "val/11.png"):
            assert caplog.text.count(str(folder / name)) == 1

    def test_too_many_damaged_ones(self, folder, monkeypatch):
        monkeypatch.setattr("training.data.faults.TOLERATED", 0)
        (folder / "valannot" / "11.png").write_bytes(b"not a picture")
        with pytest.raises(DataError, match=r"1 pictures of 13 cannot be read: .*11.png"):
            [*SceneFolder(folder, 3).whole()]

    def test_numbers_of_no_class_end_training(self, folder):
        """However many files may be unreadable."""
        labels = scene(4)[1].copy()
        labels[20, 5:9] = [7, 3, 7, 254]
        Image.fromarray(labels).save(folder / "trainannot" / "4.png")
        source = SceneFolder(folder, 3, max_unreadable=1.0)
        message = r"Labels must be from 0 to 2, or 255 to be ignored. Received: 3, 7, 254 in .*trainannot.4\.png"
        with pytest.raises(DataError, match=message), source.clear_errors():
            take(source.training(recipe()), 5)

    def broken(self, folder, image, message, classes=3, **options):
        image.save(folder / "valannot" / "11.png")
        with pytest.raises(DataError, match=rf"{message} in .*valannot.11\.png"):
            [*SceneFolder(folder, classes, max_unreadable=1.0, **options).whole()]

    def test_numbers_of_no_class_from_one_on(self, folder):
        message = r"Labels must be from 1 to 2, or 255 to be ignored. Received: 3"
        self.broken(folder, Image.fromarray(scene(4, 30, 44, 4)[1]), message, 2, reduce_zero_label=True)

    def test_one_class(self, folder):
        with pytest.raises(DataError, match="classes must be 2 or more.* Received: 1, road"):
            SceneFolder(folder, ["road"])

    def test_other_size(self, folder):
        image = Image.fromarray(scene(4, 20, 41)[1])
        self.broken(folder, image, "Labels must have the size of their picture, 44 x 30. Received: 41 x 20")

    def test_colours(self, folder):
        image = Image.fromarray(scene(4, 30, 44)[0])
        self.broken(folder, image, r"Labels must be numbers of classes, a PNG of grey levels .*: a PNG of colours")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small data set of TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    class SmallScenes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "segmentation_mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(range(8)), "test": self._generate_examples(range(8, 10))}

        def _generate_examples(self, numbers):
            for number in numbers:
                pixels, labels = scene(number)
                yield number, {"image": pixels, "segmentation_mask": labels[..., None]}

    folder = tmp_path_factory.mktemp("tfds")
    SmallScenes(data_dir=folder).download_and_prepare()
    return {"name": "small_scenes", "data_dir": folder}


class TestTfds:
    @pytest.mark.slow
    def test_as_a_folder(self, prepared):
        source = TfdsScenes(**prepared)
        assert (source.size, source.validation_size, source.class_names) == (8, 2, numbered(3))
        expected = {pixels.tobytes(): labels for pixels, labels in map(scene, (8, 9))}
        for pixels, labels, _ in source.whole():
            np.testing.assert_array_equal(labels, expected.pop(pixels.tobytes()))
        assert not expected
        ((images, labels),) = take(source.training(recipe()), 1)
        assert (images.shape, labels.shape) == ((4, 32, 32, 3), (4, 32, 32))
        assert {*np.unique(labels)} <= {0, 1, 2, 255}

    def test_without_labels_of_pixels(self):
        with pytest.raises(DataError, match=r"cifar10 has no class maps \(annotation, segmentation_mask"):
            TfdsScenes("cifar10")

    def test_instances_in_place_of_classes(self):
        with pytest.raises(DataError, match="Give the folder ADEChallengeData2016"):
            open_scenes(recipe(data="tfds:scene_parse150"))


class TestOpenScenes:
    def test_fields_of_the_recipe(self, folder):
        source = open_scenes(recipe(data=str(folder), reduce_zero_label=True, ignore_label=254, classes="254"))
        assert (source.ignore_label, source.reduce_zero_label, len(source.class_names)) == (254, True, 254)

    @pytest.mark.parametrize("ignore_label", [0, 253])
    def test_ignored_number_that_is_a_class(self, folder, ignore_label):
        with pytest.raises(DataError, match=f"must be 254 or more.*Received: ignore_label={ignore_label}"):
            open_scenes(recipe(data=str(folder), reduce_zero_label=True, ignore_label=ignore_label, classes="254"))

    def test_no_data(self):
        with pytest.raises(RecipeError, match="this recipe has none of its own"):
            open_scenes(recipe())
