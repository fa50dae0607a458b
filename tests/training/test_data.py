import io
import logging
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_cnv2 import load_image
from tests.training.small import finetuning, pretraining
from training import augment
from training.augment import Augmentation
from training.crops import random_crop
from training.data import DataError
from training.draws import Draws
from training.folders import Folder
from training.shares import Share
from training.tfds import Tfds

FIELDS = {"image_size": 16, "batch_size": 4, "crop_area": (0.3, 1.0), "flip": True}


def photo(number, height=40, width=56):
    """A smooth picture, another one for each number."""
    y, x = np.mgrid[:height, :width] / 20
    waves = [np.sin(y * (1 + number % 3) + channel) + np.cos(x + number) for channel in range(3)]
    return (np.stack(waves, -1) * 60 + 128).astype("uint8")


def write(path, number=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(number)).convert(mode).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Ten training pictures of two classes, three of validation."""
    for number in range(10):
        write(tmp_path / "train" / "ab"[number % 2] / f"{number}.jpg", number)
    for number in range(3):
        write(tmp_path / "val" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path


def take(dataset, count):
    return [*dataset.take(count).as_numpy_iterator()]


def parts_of(load, workers, count):
    """The batches of each worker; `load` takes a share."""
    return [take(load(Share(worker, workers)), count) for worker in range(workers)]


def put_together(parts):
    return [keras.tree.map_structure(lambda *columns: np.concatenate(columns), *batch) for batch in zip(*parts)]


def assert_same(ones, twos):
    assert len(ones) == len(twos)
    for one, two in zip(ones, twos):
        keras.tree.map_structure(np.testing.assert_array_equal, one, two)


def prints_of(images):
    return [image.round().tobytes() for image in images]


class TestLayouts:
    def test_train_and_val(self, folder):
        source = Folder(folder)
        assert (source.size, source.validation_size, source.class_names) == (10, 3, ("a", "b"))

    def test_test_stands_in_for_val(self, folder):
        (folder / "val").rename(folder / "test")
        assert Folder(folder).validation_size == 3

    def test_share_is_held_out_of_each_class(self, folder):
        train = folder / "train"
        source = Folder(train, validation_share=0.2)
        assert (source.size, source.validation_size) == (8, 2)
        ((_, labels, weights),) = take(source.validation(finetuning(**FIELDS), 4), 9)
        np.testing.assert_array_equal(weights, [1, 1, 0, 0])
        np.testing.assert_array_equal(labels[:2].sum(axis=0), [1, 1])
        assert Folder(train, validation_share=0.0).validation(finetuning(**FIELDS), 4) is None

    def test_share_of_each_class_to_train_on(self, folder):
        source = Folder(folder, train_share=0.4)
        assert (source.size, source.validation_size) == (4, 3)
        assert [*np.bincount(source._labels[:4])] == [2, 2]
        source = Folder(folder / "train", validation_share=0.2, train_share=0.01)
        assert (source.size, source.validation_size) == (2, 2)

    def test_all_for_evaluation(self, folder):
        source = Folder(folder / "train", validation_share=1.0)
        assert (source.size, source.validation_size, source.class_names) == (0, 10, ("a", "b"))
        batches = take(source.validation(finetuning(**FIELDS), 4), 9)
        assert [weights.sum() for *_, weights in batches] == [4, 4, 2]

    def test_without_labels_pictures_may_lie_anywhere(self, tmp_path):
        for path in ("a.jpg", "b/c.PNG", "b/d/e.jpeg", ".hidden/f.jpg", "notes.txt"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("txt"):
                (tmp_path / path).write_text("x")
            else:
                write(tmp_path / path, format="PNG")
        source = Folder(tmp_path, labelled=False)
        assert (source.size, source.class_names) == (3, None)

    def test_links_are_followed_and_circles_ended(self, folder, tmp_path_factory):
        linked = tmp_path_factory.mktemp("linked")
        (linked / "train").symlink_to(folder / "train")
        (folder / "train" / "a" / "again").symlink_to(folder / "train" / "a")
        assert Folder(linked, validation_share=0.0).size == 10


class TestBadFolders:
    def test_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"folder of pictures. Received: .*nowhere"):
            Folder(tmp_path / "nowhere")

    def test_empty(self, tmp_path):
        for labelled in (True, False):
            with pytest.raises(DataError, match="There are no pictures"):
                Folder(tmp_path, labelled=labelled)

    def test_pictures_without_classes(self, tmp_path):
        write(tmp_path / "a.jpg")
        with pytest.raises(DataError, match="labelled=False takes pictures without"):
            Folder(tmp_path)

    def test_empty_class(self, folder):
        (folder / "train" / "c").mkdir()
        with pytest.raises(DataError, match=r"these classes: c\."):
            Folder(folder)

    def test_one_class(self, folder):
        """As where the folder above the right one was given."""
        (folder / "val").rename(folder / "train" / "a" / "more")
        (folder / "train").rename(folder / "photos")
        with pytest.raises(DataError, match=r"two classes or more: photos\. Received: "):
            Folder(folder)

    def test_unknown_class_in_validation(self, folder):
        write(folder / "val" / "x" / "0.jpg")
        with pytest.raises(DataError, match=r"training lacks: x\."):
            Folder(folder)

    def test_evaluation_checks_as_training_does(self, folder, caplog):
        (folder / "train" / "c").mkdir()
        with pytest.raises(DataError, match=r"these classes: c\."):
            Folder(folder, validation_share=1.0)
        write(folder / "train" / "c" / "0.jpg")
        (folder / "val" / "c").mkdir()
        assert Folder(folder, validation_share=1.0).class_names == ("a", "b", "c")
        assert "no validation pictures of these classes: c" in caplog.text
        write(folder / "val" / "x" / "0.jpg")
        with pytest.raises(DataError, match=r"training lacks: x\."):
            Folder(folder, validation_share=1.0)

    def test_validation_without_classes(self, tmp_path):
        write(tmp_path / "train" / "a" / "0.jpg")
        write(tmp_path / "train" / "b" / "0.jpg")
        write(tmp_path / "val" / "0.jpg")
        with pytest.raises(DataError, match=r"folders of classes, as training. Received: .*val"):
            Folder(tmp_path)

    def test_other_backends(self, folder, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(DataError, match=r"train on arrays, in an \.npz file. Received: the backend jax"):
            Folder(folder)

    def test_class_missing_in_validation(self, folder, caplog):
        shutil.rmtree(folder / "val" / "b")
        source = Folder(folder)
        assert "no validation pictures of these classes: b" in caplog.text
        (_, labels, _), *_ = take(source.validation(finetuning(**FIELDS), 4), 1)
        np.testing.assert_array_equal(labels, [[1, 0], [1, 0], [0, 0], [0, 0]])


class TestTraining:
    def test_batches(self, folder):
        images = take(Folder(folder).training(pretraining(**FIELDS)), 3)
        assert {batch.shape for batch in images} == {(4, 16, 16, 3)}
        assert images[0].dtype == "float32"
        assert 0 <= images[0].min() < images[0].max() <= 255

    def test_an_epoch_has_every_picture_at_most_once_in_a_new_order(self, folder):
        plain = {**FIELDS, "crop_area": (1.0, 1.0), "flip": False}
        batches = take(Folder(folder).training(pretraining(**plain)), 6)
        prints = [[image.round().tobytes() for image in batch] for batch in batches]
        epochs = [prints[0] + prints[1], prints[2] + prints[3], prints[4] + prints[5]]
        assert all(len({*epoch}) == 8 for epoch in epochs)
        assert epochs[0] != epochs[1] != epochs[2]
        other = take(Folder(folder).training(pretraining(**plain, seed=1)), 2)
        assert [image.round().tobytes() for batch in other for image in batch] != epochs[0]

    def test_goes_on_from_any_batch_as_if_never_interrupted(self, folder):
        source, recipe = Folder(folder), pretraining(**FIELDS)
        whole = take(source.training(recipe), 6)
        for first_batch in (1, 4, 5):
            rest = take(source.training(recipe, first_batch), 6 - first_batch)
            np.testing.assert_array_equal(whole[first_batch:], rest)

    @pytest.mark.slow
    def test_goes_on_with_all_augmentation(self, folder):
        augmentation = Augmentation(2, rand_augment=9.0, erasing=0.5, label_smoothing=0.1, mixup=0.5, cutmix=0.5)
        source, recipe = Folder(folder), finetuning(**FIELDS)
        whole = take(source.training(recipe, 0, augmentation), 5)
        for one, two in zip(whole[3:], take(source.training(recipe, 3, augmentation), 2), strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])

    def test_labels_belong_to_the_pictures(self, folder):
        """Bright pictures for one class, dark ones for the other."""
        for path in (folder / "train").rglob("*.jpg"):
            Image.new("RGB", (30, 30), (200,) * 3 if path.parent.name == "b" else (50,) * 3).save(path)
        for images, targets in take(Folder(folder).training(finetuning(**FIELDS), 0, Augmentation(2)), 4):
            np.testing.assert_array_equal(targets.argmax(-1), images.mean(axis=(1, 2, 3)) > 125)

    def test_without_labels_there_is_no_augmentation(self, folder):
        with pytest.raises(DataError, match="labelled=False"):
            Folder(folder, labelled=False).training(finetuning(**FIELDS), 0, Augmentation(2))


class TestCrop:
    """Against PIL's resize of the same box."""

    def crop(self, contents, size=16, area=(0.3, 1.0)):
        return random_crop(contents, size, area, False, Draws(3, 4)).numpy()

    def expected(self, contents, size=16, area=(0.3, 1.0), grid=1):
        image = Image.open(io.BytesIO(contents)).convert("RGB")
        box = augment.sample_crop(image.height, image.width, area, Draws(3, 4))
        top, left, height, width = (int(number) // grid * grid for number in box)
        return np.asarray(image.crop((left, top, left + width, top + height)).resize((size, size), Image.BICUBIC))

    @pytest.mark.parametrize(
        ("name", "mode", "options"),
        [
            ("a.jpg", "RGB", {"quality": 95}),
            ("a.jpg", "L", {}),
            ("a.png", "RGB", {}),
            ("a.png", "RGBA", {}),
            ("a.png", "L", {}),
            ("a.png", "P", {}),
            ("a.bmp", "RGB", {}),
            ("a.gif", "RGB", {}),
            ("a.webp", "RGB", {"lossless": True}),
        ],
    )
    def test_kinds_of_pictures(self, tmp_path, name, mode, options):
        contents = write(tmp_path / name, 1, mode, **options).read_bytes()
        difference = np.abs(self.crop(contents) - self.expected(contents))
        assert difference.mean() < 1

    def test_sixteen_bits(self, tmp_path):
        levels = photo(1)[..., 0]
        contents = {}
        for name, values in (("wide", levels.astype("uint16") * 257), ("narrow", levels)):
            Image.fromarray(values).save(tmp_path / f"{name}.png")
            contents[name] = (tmp_path / f"{name}.png").read_bytes()
        assert np.abs(self.crop(contents["wide"]) - self.expected(contents["narrow"])).mean() < 1

    def test_cmyk(self, tmp_path):
        """Decoded in part as decoded in whole; PIL and TensorFlow differ about CMYK itself."""
        contents = write(tmp_path / "a.jpg", 1, "CMYK").read_bytes()
        pixels = tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE").numpy()
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        assert np.abs(self.crop(contents) - self.expected(png.getvalue())).mean() < 1

    def test_large_pictures_are_decoded_at_a_part_of_their_size(self, tmp_path):
        picture = Image.fromarray(photo(2)).resize((1200, 900), Image.BICUBIC)
        picture.save(tmp_path / "a.jpg", quality=95)
        contents = (tmp_path / "a.jpg").read_bytes()
        # Decoded at a quarter, the box begins and ends at a whole quarter pixel.
        difference = np.abs(self.crop(contents, 32, (0.3, 0.5)) - self.expected(contents, 32, (0.3, 0.5), grid=4))
        assert difference.mean() < 1

    def test_flip(self, tmp_path):
        contents = write(tmp_path / "a.png").read_bytes()
        images = [random_crop(contents, 16, (1.0, 1.0), True, Draws(0, key)).numpy() for key in range(20)]
        plain = random_crop(contents, 16, (1.0, 1.0), False, Draws(0, 0)).numpy()
        plain = [np.abs(image - plain).max() < 1e-3 for image in images]
        mirrored = [np.abs(image[:, ::-1] - images[plain.index(True)]).max() < 1e-3 for image in images]
        assert 3 < sum(plain) < 17
        assert [not is_plain for is_plain in plain] == mirrored


class TestValidation:
    def test_every_picture_once_as_in_evaluation(self, folder):
        batches = take(Folder(folder).validation(finetuning(**FIELDS), 2), 5)
        assert [images.shape for images, *_ in batches] == [(2, 16, 16, 3)] * 2
        images, labels, weights = (np.concatenate(part) for part in zip(*batches))
        paths = sorted((folder / "val").rglob("*.png"))
        np.testing.assert_array_equal(images[:3], [load_image(path, 16, "squash") for path in paths])
        np.testing.assert_array_equal(labels, [[1, 0], [1, 0], [0, 1], [0, 0]])
        np.testing.assert_array_equal(weights, [1, 1, 1, 0])
        assert not images[3].any()

    def test_examples_are_always_the_same(self, folder):
        one, two = (Folder(folder).examples(pretraining(**FIELDS), 3) for _ in range(2))
        assert one.shape == (3, 16, 16, 3)
        np.testing.assert_array_equal(one, two)


class TestUnreadable:
    @pytest.fixture(autouse=True)
    def damage(self, folder):
        (folder / "train" / "a" / "2.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
        (folder / "val" / "a" / "0.png").write_bytes(b"not a picture")

    def test_named_and_replaced(self, folder, caplog):
        batches = take(Folder(folder, max_unreadable=0.2).training(pretraining(**FIELDS)), 5)
        assert {len(batch) for batch in batches} == {4}
        assert len({image.tobytes() for batch in batches[:2] for image in batch}) == 8
        assert [record.getMessage().count("2.jpg") for record in caplog.records] == [1]
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        rest = take(Folder(folder, max_unreadable=0.2).training(pretraining(**FIELDS), 1), 4)
        np.testing.assert_array_equal(batches[1:], rest)

    def test_left_out_of_validation(self, folder, caplog):
        source = Folder(folder, max_unreadable=0.2)
        images, labels, weights = zip(*take(source.validation(finetuning(**FIELDS), 2), 9))
        np.testing.assert_array_equal(weights, [[1, 0], [1, 0]])
        assert not np.any([batch[1] for batch in images])
        np.testing.assert_array_equal(labels, [[[1, 0], [0, 0]], [[0, 1], [0, 0]]])
        assert "0.png" in caplog.text

    def test_vanished(self, folder, caplog):
        source = Folder(folder, max_unreadable=0.2)
        (folder / "train" / "b" / "1.jpg").unlink()
        assert len(take(source.training(pretraining(**FIELDS)), 5)) == 5
        assert "1.jpg" in caplog.text

    def test_too_many(self, folder):
        source = Folder(folder, max_unreadable=0.0)
        message = r"1 pictures of 13 cannot be read: .*2\.jpg.*Received: max_unreadable=0$"
        with pytest.raises(DataError, match=message), source.clear_errors():
            take(source.training(pretraining(**FIELDS)), 5)

    def test_all(self, folder):
        """As when a disk is gone: an error, whatever may be unreadable, and no search without end."""
        source = Folder(folder, max_unreadable=1.0)
        shutil.rmtree(folder / "train")
        with pytest.raises(DataError, match="10 pictures of 13 cannot be read: .* and 5 more"), source.clear_errors():
            take(source.training(pretraining(**FIELDS)), 1)


class TestShares:
    """Of folders: the parts of all workers make the batches of one."""

    # Two epochs and a half.
    RECIPE = finetuning(**{**FIELDS, "batch_size": 8}, accumulation=2)
    AUGMENTATION = Augmentation(2, erasing=0.5, label_smoothing=0.1)

    @pytest.fixture
    def five(self, folder):
        """Five pictures of validation."""
        for number in (3, 4):
            write(folder / "val" / "b" / f"{number}.png", number)
        return folder

    @pytest.fixture
    def shaded(self, folder):
        """Each training picture is known by its brightness, its crops by the slope."""
        for path in (folder / "train").rglob("*.jpg"):
            row = np.linspace(10, 26, 40) + 20 * int(path.stem)
            Image.fromarray(np.tile(row[None, :, None], (40, 1, 3)).astype("uint8")).save(path, quality=95)
        return folder

    def numbers(self, images):
        return [round((image.mean() - 18) / 20) for image in images]

    def test_training(self, folder):
        source = Folder(folder)
        whole = take(source.training(self.RECIPE, 0, self.AUGMENTATION), 5)
        parts = parts_of(lambda share: source.training(self.RECIPE, 0, self.AUGMENTATION, share), 2, 5)
        assert_same(put_together(parts), whole)
        sizes = {len(column) for part in parts for batch in part for column in keras.tree.flatten(batch)}
        assert sizes == {2}

    def test_goes_on_from_any_batch_as_if_never_interrupted(self, folder):
        def load(first_batch):
            return Folder(folder).training(self.RECIPE, first_batch, self.AUGMENTATION, Share(1, 2))

        assert_same(take(load(3), 2), take(load(0), 5)[3:])

    @pytest.mark.parametrize(("batch_size", "workers"), [(4, 2), (8, 4)])
    def test_validation(self, five, batch_size, workers):
        """In the last batch some have no picture at all."""
        source = Folder(five)
        whole = take(source.validation(self.RECIPE, batch_size), 9)
        parts = parts_of(lambda share: source.validation(self.RECIPE, batch_size, share), workers, 9)
        assert [len(part) for part in parts] == [-(-5 // batch_size)] * workers
        assert {images.shape for part in parts for images, *_ in part} == {(batch_size // workers, 16, 16, 3)}
        assert_same(put_together(parts), whole)
        weights = np.concatenate([weights for *_, weights in whole])
        np.testing.assert_array_equal(weights, np.arange(len(weights)) < 5)
        assert not parts[-1][-1][2].any()

    def test_unreadable_in_training(self, shaded, caplog):
        """In the first batch of the first worker, where it is the only picture of the part."""
        source = Folder(shaded, max_unreadable=0.1)
        parts = [source.training(self.RECIPE, 0, None, Share(worker, 4)) for worker in range(2)]
        before = [take(part, 2) for part in parts]
        damaged, *others = self.numbers(before[0][0])
        (path,) = (shaded / "train").rglob(f"{damaged}.jpg")
        path.write_bytes(b"\xff\xd8\xff" + bytes(100))
        after = [take(part, 2) for part in parts]
        assert_same(after[0][1:], before[0][1:])
        assert_same(after[1:], before[1:])
        batch = self.numbers(after[0][0])
        assert (len(batch), batch[:-1]) == (1, others)
        assert batch[-1] not in (damaged, *others)
        assert [record.getMessage().count(path.name) for record in caplog.records] == [1]

    def test_unreadable_in_validation(self, five, caplog):
        """It is the only picture of the part."""
        source = Folder(five, max_unreadable=0.1)
        parts = [source.validation(self.RECIPE, 4, Share(worker, 4)) for worker in range(4)]
        before = [take(part, 9) for part in parts]
        (five / "val" / "a" / "0.png").write_bytes(b"not a picture")
        after = [take(part, 9) for part in parts]
        assert_same(after[0][1:], before[0][1:])
        assert_same(after[1:], before[1:])
        for column, old in zip(after[0][0], before[0][0]):
            np.testing.assert_array_equal(column, [*old[1:], np.zeros_like(old[0])])
        assert sum(weights.sum() for part in after for *_, weights in part) == 4
        assert [record.getMessage().count("0.png") for record in caplog.records] == [1]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small data set of TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    class SmallShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["round", "square"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(10), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for number in range(count):
                yield number, {"image": photo(number), "label": number % 2}

    folder = tmp_path_factory.mktemp("tfds")
    SmallShapes(data_dir=folder).download_and_prepare()
    return folder


class TestTfds:
    def source(self, prepared, **arguments):
        return Tfds("small_shapes", data_dir=prepared, **arguments)

    def test_training_and_validation(self, prepared):
        source = self.source(prepared)
        assert (source.size, source.validation_size, source.class_names) == (10, 3, ("round", "square"))
        recipe = finetuning(**FIELDS)
        images, targets = take(source.training(recipe, 0, Augmentation(2)), 1)[0]
        assert (images.shape, targets.shape) == ((4, 16, 16, 3), (4, 2))
        assert [[*weights] for *_, weights in take(source.validation(recipe, 2), 9)] == [[1, 1], [1, 0]]
        assert take(self.source(prepared, labelled=False).training(recipe), 1)[0].shape == (4, 16, 16, 3)

    def test_goes_on_from_any_batch_as_if_never_interrupted(self, prepared):
        recipe = pretraining(**FIELDS)
        whole = take(self.source(prepared).training(recipe), 6)
        rest = take(self.source(prepared).training(recipe, 3), 3)
        np.testing.assert_array_equal(whole[3:], rest)
        assert not np.array_equal(whole[:2], whole[2:4])

    def test_order_is_the_recipes_alone(self, prepared):
        """Whatever the seed of the process."""
        batches = []
        for seed in (1, 2):
            tf.random.set_seed(seed)
            batches.append(take(self.source(prepared).training(pretraining(**FIELDS)), 2))
        np.testing.assert_array_equal(*batches)

    def test_unreadable(self, prepared, caplog):
        source = self.source(prepared, max_unreadable=0.1)
        cut = tf.constant("small_shapes-train.tfrecord-00000-of-00001__3")

        def damage(row):
            image = tf.where(row["tfds_id"] == cut, tf.strings.substr(row["image"], 0, 50), row["image"])
            return {**row, "image": image}

        read = source._read
        source._read = lambda split: read(split=split).map(damage)
        assert {len(batch) for batch in take(source.training(pretraining(**FIELDS)), 5)} == {4}
        messages = [record.getMessage() for record in caplog.records if record.name == "training.data"]
        assert messages == [f"Left out, as it cannot be read: {cut.numpy().decode()}"]

    @pytest.mark.slow
    def test_no_two_workers_train_on_the_same_pictures(self, prepared):
        """Ten pictures: the parts of three workers are not alike, and one has none to spare."""
        plain = {**FIELDS, "batch_size": 9, "crop_area": (1.0, 1.0), "flip": False}
        recipe, source = pretraining(**plain), self.source(prepared)
        steps = recipe.steps_per_epoch(10)
        parts = parts_of(lambda share: source.training(recipe, 0, None, share), 3, 2 * steps)
        assert {len(batch) for part in parts for batch in part} == {3}
        for epoch in (slice(steps), slice(steps, 2 * steps)):
            prints = [prints_of(batch) for part in parts for batch in part[epoch]]
            assert len({*np.ravel(prints)}) == steps * 9

    def test_share_goes_on_from_any_batch_as_if_never_interrupted(self, prepared):
        def load(first_batch):
            return self.source(prepared).training(pretraining(**FIELDS), first_batch, None, Share(1, 2))

        assert_same(take(load(3), 3), take(load(0), 6)[3:])

    def test_shares_of_validation(self, prepared):
        """The second worker has no picture in the last batch."""
        source, recipe = self.source(prepared), finetuning(**FIELDS)
        parts = parts_of(lambda share: source.validation(recipe, 2, share), 2, 9)
        assert [len(part) for part in parts] == [2, 2]
        assert {len(column) for part in parts for batch in part for column in batch} == {1}
        images, labels, weights = (np.concatenate(column) for column in zip(*parts[0], *parts[1]))
        expected = source.examples(recipe, 3)
        assert sorted(prints_of(images[weights == 1])) == sorted(prints_of(expected))
        assert len({*prints_of(expected)}) == 3
        assert labels[weights == 1].sum(axis=0).tolist() == [2, 1]
        assert not images[weights == 0].any()
        assert not labels[weights == 0].any()

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
        with pytest.raises(DataError, match=r'pip install "keras_cnv2\[train\]"\. Received: '):
            Tfds("cifar10")

    def test_not_of_pictures(self, tmp_path):
        """Said before anything is downloaded."""
        with pytest.raises(DataError, match="imdb_reviews has no pictures by the name of image"):
            Tfds("imdb_reviews", data_dir=tmp_path)

    def test_to_be_downloaded_by_hand(self, tmp_path):
        with pytest.raises(
            DataError, match=r"imagenet2012 is not in .* cannot be prepared: .*ILSVRC2012_img_train\.tar"
        ):
            Tfds("imagenet2012", data_dir=tmp_path)

    def test_share_is_held_out_where_there_is_no_validation_split(self, prepared, monkeypatch):
        monkeypatch.setattr("training.tfds.VALIDATION_NAMES", ())
        for share, sizes in {0.2: (8, 2), 0.0: (10, 0), 1.0: (0, 10)}.items():
            source = self.source(prepared, validation_share=share)
            assert (source.size, source.validation_size) == sizes
        assert sum(weights.sum() for *_, weights in take(source.validation(finetuning(**FIELDS), 4), 9)) == 10

    def test_share_to_train_on(self, prepared, monkeypatch):
        assert self.source(prepared, train_share=0.5).size == 5
        monkeypatch.setattr("training.tfds.VALIDATION_NAMES", ())
        source = self.source(prepared, validation_share=0.2, train_share=0.01)
        assert (source.size, source.validation_size) == (1, 2)
        (image,) = take(source.training(pretraining(**{**FIELDS, "batch_size": 1})), 1)[0]
        assert image.shape == (16, 16, 3)

    def test_unknown_name(self, tmp_path):
        with pytest.raises(DataError, match=r"no no_such_set.*Received: tfds:no_such_set"):
            Tfds("no_such_set", data_dir=tmp_path)
