import shutil

import keras
import numpy as np
import pytest

from tests.training.data.samples import FIELDS, take, write
from tests.training.small import finetuning
from training.data.images.folders import Folder
from training.errors import DataError


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
        labels = [source.rows.open(np.arange(4), key)[1] for key in range(4)]
        assert [*np.bincount(labels)] == [2, 2]
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
        with pytest.raises(DataError, match=r"train on arrays in an \.npz file. Received: the backend jax"):
            Folder(folder)

    def test_class_missing_in_validation(self, folder, caplog):
        shutil.rmtree(folder / "val" / "b")
        source = Folder(folder)
        assert "no validation pictures of these classes: b" in caplog.text
        (_, labels, _), *_ = take(source.validation(finetuning(**FIELDS), 4), 1)
        np.testing.assert_array_equal(labels, [[1, 0], [1, 0], [0, 0], [0, 0]])
