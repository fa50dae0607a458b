import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_cnv2 import load_image
from keras_cnv2.images.pictures import Reading
from tests.training.data.samples import FIELDS, assert_same, parts_of, put_together, take, write
from tests.training.small import finetuning, pretraining
from training.data.faults import Faults
from training.data.images.augment import Augmentation
from training.data.images.folders import Folder
from training.data.shares import Share
from training.errors import DataError

# Most tests are about which pictures come when; the first ones have their real crops.
quick = pytest.mark.usefixtures("quick_pictures")


class TestTraining:
    def test_batches(self, folder):
        images = take(Folder(folder).training(pretraining(**FIELDS)), 6)
        assert {batch.shape for batch in images} == {(4, 16, 16, 3)}
        assert images[0].dtype == "float32"
        assert 0 <= images[0].min() < images[0].max() <= 255

    @quick
    def test_an_epoch_has_every_picture_at_most_once_in_a_new_order(self, folder):
        plain = {**FIELDS, "crop_area": (1.0, 1.0), "flip": False}
        batches = take(Folder(folder).training(pretraining(**plain)), 6)
        prints = [[image.round().tobytes() for image in batch] for batch in batches]
        epochs = [prints[0] + prints[1], prints[2] + prints[3], prints[4] + prints[5]]
        assert all(len({*epoch}) == 8 for epoch in epochs)
        assert epochs[0] != epochs[1] != epochs[2]
        other = take(Folder(folder).training(pretraining(**plain, seed=1)), 2)
        assert [image.round().tobytes() for batch in other for image in batch] != epochs[0]

    @quick
    def test_flips_alternate(self, folder, monkeypatch):
        """A picture is mirrored in either of two epochs."""
        asked = []

        def crop(contents, size, area, flip, draws, reading):
            assert flip.dtype == bool
            name = tf.strings.to_hash_bucket_fast(contents, 2**30)
            values = tf.cast(tf.stack([name, tf.cast(flip, "int64")]), "float32")
            return tf.broadcast_to(values[:, None, None], (2, size, 3))

        monkeypatch.setattr("training.data.images.task.random_crop", crop)
        recipe = pretraining(**FIELDS, alternate_flip=True)
        for first in (0, 2, 4):
            images = np.concatenate(take(Folder(folder).training(recipe, first), 2))
            asked.append({image[0, 0, 0]: bool(image[1, 0, 0]) for image in images})
        both = [{**asked[0], **asked[2]}, asked[1]]
        common = both[0].keys() & both[1].keys()
        assert len(common) >= 6
        assert all(both[0][name] != both[1][name] for name in common)
        assert {*asked[0].values()} == {True, False}

    @quick
    def test_shift(self, folder):
        plain, shifted = (take(Folder(folder).training(pretraining(**FIELDS, shift=shift)), 1)[0] for shift in (0, 2))
        assert shifted.shape == plain.shape
        assert (np.abs(plain - shifted).mean(axis=(1, 2, 3)) > 0.1).any()

    @pytest.mark.slow
    def test_goes_on_with_all_augmentation(self, folder):
        augmentation = Augmentation(2, rand_augment=9.0, erasing=0.5, label_smoothing=0.1, mixup=0.5, cutmix=0.5)
        source, recipe = Folder(folder), finetuning(**FIELDS)
        whole = take(source.training(recipe, 0, augmentation), 5)
        for one, two in zip(whole[3:], take(source.training(recipe, 3, augmentation), 2), strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])

    @quick
    def test_labels_belong_to_the_pictures(self, folder):
        """Bright pictures for one class, dark ones for the other."""
        for path in (folder / "train").rglob("*.jpg"):
            Image.new("RGB", (30, 30), (200,) * 3 if path.parent.name == "b" else (50,) * 3).save(path)
        for images, targets in take(Folder(folder).training(finetuning(**FIELDS), 0, Augmentation(2)), 4):
            np.testing.assert_array_equal(targets.argmax(-1), images.mean(axis=(1, 2, 3)) > 125)

    @quick
    def test_all_draws_are_independent(self, folder, monkeypatch):
        """Those of crops, of changes to a picture and of changes to a batch; at any step, place and worker."""

        def number(draws):
            return keras.random.uniform((), seed=draws)

        def crop(contents, size, area, flip, draws, reading):
            return tf.fill((size, size, 3), number(draws))

        class Numbers:
            """Leaves the number of the crop in the first row, its own in the second, that of the batch below."""

            def image(self, image, draws):
                return tf.concat([image[:1], tf.fill(image[1:].shape, number(draws))], 0)

            def batch(self, images, labels, draws):
                return tf.concat([images[:, :2], tf.fill(images[:, 2:].shape, number(draws))], 1), labels

        monkeypatch.setattr("training.data.images.task.random_crop", crop)
        source, recipe, workers, steps = Folder(folder), finetuning(**FIELDS), 2, 3  # of which two are an epoch
        drawn = []
        for part in parts_of(lambda share: source.training(recipe, 0, Numbers(), share), workers, steps):
            for images, _ in part:
                crops, pictures, batch = images[:, :3, 0, 0].T
                drawn += [*crops, *pictures, batch[0]]
        assert len({*drawn}) == len(drawn) == workers * steps * (2 + 2 + 1)

    def test_without_labels_there_is_no_augmentation(self, folder):
        with pytest.raises(DataError, match="labelled=False"):
            Folder(folder, labelled=False).training(finetuning(**FIELDS), 0, Augmentation(2))


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

    @quick
    def test_examples_are_always_the_same(self, folder):
        one, two = (Folder(folder).examples(pretraining(**FIELDS), 3) for _ in range(2))
        assert one.shape == (3, 16, 16, 3)
        np.testing.assert_array_equal(one, two)

    @quick
    def test_examples_are_loaded_a_few_at_once(self, folder, monkeypatch, caplog):
        """Also past one that cannot be read."""
        shutil.rmtree(folder / "val")
        (folder / "train" / "a" / "4.jpg").write_bytes(b"not a picture")

        def load(count):
            source = Folder(folder, validation_share=0.0, max_unreadable=0.2)
            rows = source.rows.mixed
            monkeypatch.setattr(source.rows, "mixed", lambda size: (sizes.append(size), rows(size))[1])
            return source.examples(pretraining(**FIELDS), count, labelled=True)

        sizes = []
        images, labels = load(20)
        assert images.shape == (9, 16, 16, 3)
        assert (images.dtype, labels.dtype) == ("float32", "int32")
        monkeypatch.setattr("training.data.loader.EXAMPLES_BATCH", 3)
        for count in (1, 4, 9, 20):
            few_images, few_labels = load(count)
            np.testing.assert_array_equal(few_images, images[:count])
            np.testing.assert_array_equal(few_labels, labels[:count])
        assert sizes == [20, 1, 3, 3, 3]

    @quick
    def test_examples_without_any_that_can_be_read(self, folder):
        for path in (folder / "val").rglob("*.png"):
            path.write_bytes(b"not a picture")
        with pytest.raises(DataError, match="There must be pictures that can be read"):
            Folder(folder, max_unreadable=1.0).examples(pretraining(**FIELDS), 3)


@quick
class TestUnreadable:
    @pytest.fixture(autouse=True)
    def damage(self, folder):
        (folder / "train" / "a" / "2.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
        (folder / "val" / "a" / "0.png").write_bytes(b"not a picture")

    def test_named_and_replaced(self, folder, caplog):
        """Also by a run that goes on in the middle of a pass, as if never interrupted."""
        batches = take(Folder(folder, max_unreadable=0.2).training(pretraining(**FIELDS)), 5)
        assert {len(batch) for batch in batches} == {4}
        assert len({image.tobytes() for batch in batches[:2] for image in batch}) == 8
        assert [record.getMessage().count("2.jpg") for record in caplog.records] == [1]
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        rest = take(Folder(folder, max_unreadable=0.2).training(pretraining(**FIELDS), 3), 2)
        np.testing.assert_array_equal(batches[3:], rest)

    def test_left_out_of_validation(self, folder, caplog, monkeypatch):
        """Two of 13, just as many as may be unreadable, of which one has vanished."""
        monkeypatch.setattr("training.data.faults.TOLERATED", 0)
        source = Folder(folder, max_unreadable=0.2)
        (folder / "val" / "a" / "2.png").unlink()
        batches = source.validation(finetuning(**FIELDS), 2)
        images, labels, weights = zip(*take(batches, 9))
        np.testing.assert_array_equal(weights, [[0, 0], [1, 0]])
        assert not images[0].any()
        assert images[1][0].any()
        assert not images[1][1].any()
        np.testing.assert_array_equal(labels, [[[0, 0], [0, 0]], [[0, 1], [0, 0]]])
        assert all(name in caplog.text for name in ("0.png", "2.png"))
        write(folder / "val" / "a" / "2.png", 2)  # one that is left moves up to the place of the other
        images, labels, weights = take(batches, 1)[0]
        assert images[0].any()
        assert not images[1].any()
        np.testing.assert_array_equal(labels, [[1, 0], [0, 0]])
        np.testing.assert_array_equal(weights, [1, 0])

    def test_ten_never_end_a_run(self, folder):
        for number in (0, 1, 3, 4, 5, 6):
            (folder / "train" / "ab"[number % 2] / f"{number}.jpg").write_bytes(b"")
        source = Folder(folder, max_unreadable=0.0)
        take(source.validation(finetuning(**FIELDS), 2), 9)
        assert [len(batch) for batch in take(source.training(pretraining(**{**FIELDS, "batch_size": 2})), 9)] == [2] * 9

    def test_too_many(self, folder, monkeypatch):
        monkeypatch.setattr("training.data.faults.TOLERATED", 0)
        source = Folder(folder, max_unreadable=0.0)
        message = r"1 pictures of 13 cannot be read: .*0\.png.* raise --max-unreadable. Received: --max-unreadable 0$"
        with pytest.raises(DataError, match=message), source.clear_errors():
            take(source.validation(finetuning(**FIELDS), 2), 9)

    @pytest.mark.parametrize(("share", "allowed"), [(0.29, 29), (0.289, 28), (0.0, 10), (1.0, 100), (0.07, 10)])
    def test_as_many_as_the_share_says(self, share, allowed):
        assert Faults(100, share).allowed == allowed

    def test_all(self, folder):
        """As when a disk is gone: an error, whatever may be unreadable, and no search without end."""
        source = Folder(folder, max_unreadable=1.0)
        shutil.rmtree(folder / "train")
        with pytest.raises(DataError, match="10 pictures of 13 cannot be read: .* and 5 more"), source.clear_errors():
            take(source.training(pretraining(**FIELDS)), 1)


@quick
class TestSixteenBits:
    """Of 12 bits in 16, as microscopes and X-rays have it, 16 grey levels are left."""

    def write(self, path, highest):
        pixels = np.linspace(0, highest, 40 * 56).reshape(40, 56, 1).astype("uint16")
        path.write_bytes(tf.io.encode_png(pixels).numpy())

    def test_named_once(self, folder, caplog):
        self.write(folder / "val" / "a" / "dark.png", 4095)
        self.write(folder / "val" / "a" / "bright.png", 65535)
        source = Folder(folder)
        for _ in range(2):
            take(source.validation(finetuning(**FIELDS), 2), 9)
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith(f"{folder}/val/a/dark.png is a PNG of 16 bits with values from 0 to 4095 ")
        assert "only 16 of 256 grey levels remain" in message

    def test_in_training(self, folder, caplog):
        for path in (folder / "train").rglob("*.jpg"):
            self.write(path, 4095)
        self.write(path.with_name("10.jpg"), 4095)
        take(Folder(folder).training(pretraining(**{**FIELDS, "batch_size": 11})), 2)
        assert caplog.text.count("with values from 0 to 4095 ") == 10
        assert caplog.text.count("this is not reported for further pictures of 16 bits") == 1

    def test_not_decoded_where_it_is_too_large(self, folder, caplog):
        for path in (folder / "val").rglob("*.png"):
            self.write(path, 4095)
        source = Folder(folder, max_unreadable=1.0, reading=Reading(max_pixels=2239))
        take(source.validation(finetuning(**FIELDS), 2), 9)
        assert "16 bits" not in caplog.text


@quick
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
        """Also of one that goes on."""
        source = Folder(folder)
        whole = take(source.training(self.RECIPE, 0, self.AUGMENTATION), 5)
        parts = parts_of(lambda share: source.training(self.RECIPE, 0, self.AUGMENTATION, share), 2, 5)
        assert_same(put_together(parts), whole)
        assert_same(take(Folder(folder).training(self.RECIPE, 4, self.AUGMENTATION, Share(1, 2)), 1), parts[1][4:])
        sizes = {len(column) for part in parts for batch in part for column in keras.tree.flatten(batch)}
        assert sizes == {2}

    def test_validation(self, five):
        """In the last batch one has no picture at all."""
        source, batch_size, workers = Folder(five), 4, 2
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
        parts = [source.validation(self.RECIPE, 4, Share(worker, 4)) for worker in range(2)]
        before = [take(part, 9) for part in parts]
        (five / "val" / "a" / "0.png").write_bytes(b"not a picture")
        after = [take(part, 9) for part in parts]
        assert_same(after[0][1:], before[0][1:])
        assert_same(after[1:], before[1:])
        for column, old in zip(after[0][0], before[0][0]):
            np.testing.assert_array_equal(column, [*old[1:], np.zeros_like(old[0])])
        assert [weights.tolist() for part in after for *_, weights in part] == [[0], [1], [1], [0]]
        assert [record.getMessage().count("0.png") for record in caplog.records] == [1]
