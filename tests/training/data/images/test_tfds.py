import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.training.data.samples import FIELDS, assert_same, parts_of, photo, prints_of, take
from tests.training.small import finetuning, pretraining
from training.data.images.augment import Augmentation
from training.data.images.tfds import Tfds
from training.data.shares import Share
from training.errors import DataError


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


@pytest.mark.usefixtures("quick_pictures")
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
        """Whatever the seed of the process: the order is the recipe's alone."""
        recipe = pretraining(**FIELDS)
        tf.random.set_seed(1)
        whole = take(self.source(prepared).training(recipe), 6)
        tf.random.set_seed(2)
        rest = take(self.source(prepared).training(recipe, 3), 3)
        np.testing.assert_array_equal(whole[3:], rest)
        assert not np.array_equal(whole[:2], whole[2:4])

    def test_unreadable(self, prepared, caplog, monkeypatch):
        import tensorflow_datasets as tfds

        cut = tf.constant("small_shapes-train.tfrecord-00000-of-00001__3")

        def damage(row):
            image = tf.where(row["tfds_id"] == cut, tf.strings.substr(row["image"], 0, 50), row["image"])
            return {**row, "image": image}

        read = tfds.core.DatasetBuilder.as_dataset
        damaged = lambda builder, **arguments: read(builder, **arguments).map(damage)  # noqa: E731
        monkeypatch.setattr(tfds.core.DatasetBuilder, "as_dataset", damaged)
        source = self.source(prepared, max_unreadable=0.1)
        assert {len(batch) for batch in take(source.training(pretraining(**FIELDS)), 5)} == {4}
        messages = [record.getMessage() for record in caplog.records if record.name == "training.data.faults"]
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

    def test_two_workers_read_different_pictures(self, prepared):
        source, recipe, parts = self.source(prepared), pretraining(**FIELDS), []
        for worker in range(2):
            batches = source.rows.epochs(recipe, Share(worker, 2))(tf.constant(0, tf.int64))
            parts.append({name for batch in batches.as_numpy_iterator() for name in batch["tfds_id"]})
        assert [len(part) for part in parts] == [5, 5]
        assert not parts[0] & parts[1]

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
        with pytest.raises(DataError, match="imdb_reviews has no feature image with pictures"):
            Tfds("imdb_reviews", data_dir=tmp_path)

    def test_to_be_downloaded_by_hand(self, tmp_path):
        with pytest.raises(
            DataError, match=r"imagenet2012 is not in .* cannot be prepared: .*ILSVRC2012_img_train\.tar"
        ):
            Tfds("imagenet2012", data_dir=tmp_path)

    def test_share_is_held_out_where_there_is_no_validation_split(self, prepared, monkeypatch):
        monkeypatch.setattr("training.data.tfds_rows.VALIDATION_NAMES", ())
        for share, sizes in {0.2: (8, 2), 0.0: (10, 0), 1.0: (0, 10)}.items():
            source = self.source(prepared, validation_share=share)
            assert (source.size, source.validation_size) == sizes
        assert sum(weights.sum() for *_, weights in take(source.validation(finetuning(**FIELDS), 4), 9)) == 10

    def test_what_is_held_out_is_not_trained_on(self, prepared, monkeypatch):
        monkeypatch.setattr("training.data.tfds_rows.VALIDATION_NAMES", ())
        source = self.source(prepared, validation_share=0.2)
        names = [row["tfds_id"] for row in source.rows.everything().as_numpy_iterator()]
        assert len({*names}) == len(names) == 10

    def test_share_to_train_on(self, prepared, monkeypatch):
        assert self.source(prepared, train_share=0.5).size == 5
        monkeypatch.setattr("training.data.tfds_rows.VALIDATION_NAMES", ())
        source = self.source(prepared, validation_share=0.2, train_share=0.01)
        assert (source.size, source.validation_size) == (1, 2)
        (image,) = take(source.training(pretraining(**{**FIELDS, "batch_size": 1})), 1)[0]
        assert image.shape == (16, 16, 3)

    def test_unknown_name(self, tmp_path):
        with pytest.raises(DataError, match=r"no no_such_set.*Received: tfds:no_such_set"):
            Tfds("no_such_set", data_dir=tmp_path)
