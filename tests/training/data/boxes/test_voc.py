import locale
import os
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.boxes.small import objects_of, save, write_list, write_voc, write_xml
from training.data.boxes.voc import read_voc
from training.errors import DataError


def ids(examples):
    return [example.id for example in examples]


class TestLayout:
    def test_examples(self, tmp_path):
        train, validation, names = read_voc(write_voc(tmp_path, 3, 2))
        assert (ids(train), ids(validation), names) == (["p0", "p1", "p2"], ["p3", "p4"], ("blue", "green", "red"))
        for number, example in enumerate(train):
            expected = objects_of(number)
            assert (example.width, example.height) == (40, 30)
            assert example.path == str(tmp_path / "JPEGImages" / f"p{number}.png")
            np.testing.assert_array_equal(example.boxes, [box for _, box in expected])
            assert [names[c] for c in example.classes] == [name for name, _ in expected]
            sides = example.boxes[:, 2:] - example.boxes[:, :2]
            np.testing.assert_array_equal(example.areas, sides.prod(axis=1))
            assert not example.crowd.any()
        assert train[0].boxes.dtype == "float32"

    def test_first_and_last_pixel(self, tmp_path):
        """1, 1, 40, 30 is the whole picture."""
        write_voc(tmp_path, 2)
        xml = (tmp_path / "Annotations" / "p0.xml").read_text()
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
        xml = xml[: xml.index("<bndbox>")] + box + xml[xml.index("</bndbox>") + 9 :]
        (tmp_path / "Annotations" / "p0.xml").write_text(xml)
        (example,) = read_voc(tmp_path, validation_share=0.0).train[:1]
        np.testing.assert_array_equal(example.boxes, [[0, 0, 40, 30]])

    def test_difficult(self, tmp_path):
        write_voc(tmp_path, 2)
        write_xml(tmp_path / "Annotations" / "p1.xml", objects_of(1), difficult=(1,))
        _, example = read_voc(tmp_path, validation_share=0.0).train
        assert example.crowd.tolist() == [False, True]

    @pytest.mark.parametrize(
        ("lists", "train", "validation"),
        [
            ({"train": [0, 1], "val": [2], "trainval": [0, 1, 2], "test": [3]}, "01", "2"),
            ({"trainval": [0, 1], "test": [3]}, "01", "3"),
            ({"train": [1], "test": [3]}, "1", "3"),
        ],
    )
    def test_lists(self, tmp_path, lists, train, validation):
        write_voc(tmp_path, 4)
        (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
        for name, numbers in lists.items():
            write_list(tmp_path, name, numbers)
        splits = read_voc(tmp_path, ["blue", "green", "red"])[:2]
        assert [ids(split) for split in splits] == [[f"p{n}" for n in part] for part in (train, validation)]

    def test_class_that_only_a_held_out_picture_has(self, tmp_path):
        """It is one all the same, whatever a draw did; of lists it is a mistake."""
        write_voc(tmp_path, 8, objects=lambda number: [("rare" if number == 3 else "red", (2, 3, 12, 13))])
        for seed in range(8):
            train, validation, names = read_voc(tmp_path, validation_share=0.25, seed=seed)
            assert names == ("rare", "red")
        write_list(tmp_path, "train", [0, 1])
        write_list(tmp_path, "val", [3])
        with pytest.raises(DataError, match="Validation has unknown classes: rare"):
            read_voc(tmp_path)

    def test_share_is_held_out(self, tmp_path):
        write_voc(tmp_path, 8)
        for _ in range(2):  # of a list, and of all there is
            train, validation, _ = read_voc(tmp_path, validation_share=0.25)
            assert (len(train), len(validation)) == (6, 2)
            assert sorted(ids(train) + ids(validation)) == [f"p{n}" for n in range(8)]
            assert ids(read_voc(tmp_path, validation_share=0.25).validation) == ids(validation)
            (tmp_path / "ImageSets" / "Main" / "train.txt").unlink(missing_ok=True)
        seeds = {tuple(ids(read_voc(tmp_path, validation_share=0.25, seed=seed).validation)) for seed in range(5)}
        assert len(seeds) > 1
        assert [len(split) for split in read_voc(tmp_path, validation_share=1.0)[:2]] == [0, 8]

    def test_lists_are_in_utf8_whatever_the_locale(self, tmp_path):
        write_voc(tmp_path, 2)
        for path in [*tmp_path.rglob("p0.*")]:
            path.rename(path.with_stem("größe"))
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("größe\np1\n", encoding="utf-8")
        before = locale.setlocale(locale.LC_CTYPE)
        try:
            locale.setlocale(locale.LC_CTYPE, "C")
            assert ids(read_voc(tmp_path, validation_share=0.0).train) == ["größe", "p1"]
        finally:
            locale.setlocale(locale.LC_CTYPE, before)

    def test_pictures_of_several_kinds(self, tmp_path):
        """By their id, whatever the annotations call the file."""
        write_voc(tmp_path, 2)
        (tmp_path / "JPEGImages" / "p0.png").unlink()
        save(tmp_path / "JPEGImages" / "p0.JPG", objects_of(0), format="JPEG")
        paths = [example.path for example in read_voc(tmp_path, validation_share=0.0).train]
        assert paths == [str(tmp_path / "JPEGImages" / name) for name in ("p0.JPG", "p1.png")]

    def test_what_is_no_picture_is_left_out(self, tmp_path, caplog):
        write_voc(tmp_path, 6)
        for number in (0, 1, 2, 3):
            (tmp_path / "JPEGImages" / f"p{number}.png").unlink()
        for number in (0, 1):
            save(tmp_path / "JPEGImages" / f"p{number}.TIF", objects_of(number), format="TIFF")
        save(tmp_path / "JPEGImages" / "p2.jpg_large", objects_of(2), format="JPEG")
        os.mkfifo(tmp_path / "JPEGImages" / "p3.jpg")
        paths = [Path(example.path).name for example in read_voc(tmp_path, validation_share=0.0).train]
        assert paths == ["p2.jpg_large", "p4.png", "p5.png"]
        assert "left out, because they are not readable pictures: 2 .tif; neither files nor folders" in caplog.text
        assert "p3.jpg" in caplog.text

    def test_list_that_is_a_pipe(self, tmp_path):
        write_voc(tmp_path, 2)
        (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
        os.mkfifo(tmp_path / "ImageSets" / "Main" / "train.txt")
        with pytest.raises(OSError, match="no regular file .*train.txt"):
            read_voc(tmp_path)


class TestBadInput:
    def read(self, tmp_path, objects, **size):
        """One picture with these objects beside a good one."""
        write_voc(tmp_path, 2)
        write_xml(tmp_path / "Annotations" / "p0.xml", objects, **size)
        return read_voc(tmp_path, ["blue", "green", "red"], validation_share=0.0).train[0]

    def test_boxes_are_clipped_dropped_and_counted(self, tmp_path, caplog):
        boxes = [(-5, -4, 10, 10), (30, 20, 47, 36), (50, 5, 60, 10), (5, 5, 5, 9), (8, 8, 7, 12), (2, 2, 40, 30.4)]
        example = self.read(tmp_path, [("red", box) for box in boxes])
        np.testing.assert_array_equal(example.boxes, [[0, 0, 10, 10], [30, 20, 40, 30], [2, 2, 40, 30]])
        assert [len(column) for column in example[4:8]] == [3] * 4
        (record,) = caplog.records
        assert record.getMessage() == (
            f"{tmp_path}: 2 boxes clipped at the border of their picture, 2 boxes without area left out, "
            "1 boxes outside of their picture left out"
        )

    def test_not_a_number(self, tmp_path, caplog):
        example = self.read(tmp_path, [("red", (1, 1, float("nan"), 9)), ("red", (1, 1, 9, 9))])
        np.testing.assert_array_equal(example.boxes, [[1, 1, 9, 9]])
        assert "1 boxes without area" in caplog.text

    def test_pictures_without_boxes_stay(self, tmp_path, caplog):
        example = self.read(tmp_path, [])
        assert example.boxes.shape == (0, 4)
        assert f"{tmp_path}: 1 pictures without boxes" in caplog.text

    def test_no_objects_at_all(self, tmp_path):
        write_voc(tmp_path, 2, objects=lambda number: [])
        with pytest.raises(DataError, match="no objects in the annotations"):
            read_voc(tmp_path)

    def test_missing_annotations(self, tmp_path):
        write_voc(tmp_path, 3)
        for number in (0, 2):
            (tmp_path / "Annotations" / f"p{number}.xml").unlink()
        with pytest.raises(DataError, match=r"2 files of annotations are missing: p0\.xml, p2\.xml\. Received: "):
            read_voc(tmp_path)

    def test_unknown_classes(self, tmp_path):
        write_voc(tmp_path, 1)
        with pytest.raises(DataError, match="Training has unknown classes: blue; the known ones are purple"):
            read_voc(tmp_path, ["purple"], validation_share=0.0)

    def test_classes_of_validation_alone(self, tmp_path):
        write_voc(tmp_path, 3, 1)
        write_xml(tmp_path / "Annotations" / "p3.xml", [("purple", (1, 1, 9, 9))])
        with pytest.raises(DataError, match="Validation has unknown classes: purple"):
            read_voc(tmp_path)

    def test_a_picture_in_both_splits(self, tmp_path):
        write_voc(tmp_path, 3)
        write_list(tmp_path, "val", [1])
        with pytest.raises(DataError, match=r"train\.txt and val\.txt both list p1\."):
            read_voc(tmp_path)

    def test_no_annotations(self, tmp_path):
        (tmp_path / "Annotations").mkdir()
        with pytest.raises(DataError, match="There are no annotations"):
            read_voc(tmp_path)

    def test_no_pictures(self, tmp_path):
        write_xml(tmp_path / "Annotations" / "p0.xml", objects_of(0))
        with pytest.raises(DataError, match="folder JPEGImages"):
            read_voc(tmp_path)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("<annotation>", "no element found"),
            ("", "no element found"),
            ("<annotation/>", "there is no size/width in <annotation>"),
            (
                "<a><size><width>40</width><height>0</height></size></a>",
                "height must be a whole number from 1 to .*, it is 0",
            ),
            ("<a><size><width>40</width><height>3</height></size><object/></a>", "there is no bndbox/xmin in <object>"),
            ("<a><size><width>99999999</width><height>3</height></size></a>", "width must be a whole number from 1 to"),
            (
                "<a><size><width>40</width><height>3</height></size><object><bndbox><xmin>1</xmin><ymin>1</ymin>"
                "<xmax>1e999</xmax><ymax>2</ymax></bndbox></object></a>",
                "xmax must be a number up to 16777216, it is inf",
            ),
            ("<a><size><width>forty</width><height>30</height></size></a>", "invalid literal"),
            ('<?xml version="1.0" encoding="nonsense"?><a/>', "unknown encoding: nonsense"),
            ('<?xml version="1.0" encoding="utf-7"?><a/>', "."),
            (
                '<!DOCTYPE a [<!ENTITY w "40">]><a><size><width>&w;</width><height>30</height></size></a>',
                "document type",
            ),
        ],
    )
    def test_files_that_are_no_annotations(self, tmp_path, content, reason):
        write_voc(tmp_path, 2)
        (tmp_path / "Annotations" / "p1.xml").write_text(content)
        with pytest.raises(DataError, match=rf"{reason}.*Received: .*p1\.xml"):
            read_voc(tmp_path)

    def test_a_list_in_another_encoding(self, tmp_path):
        write_voc(tmp_path, 2)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("größe\n", encoding="latin-1")
        with pytest.raises(DataError, match=r"not a list of pictures in UTF-8: .*Received: .*train\.txt"):
            read_voc(tmp_path)

    def test_too_large_a_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr("training.data.boxes.voc.MAX_FILE", 100)
        with pytest.raises(DataError, match=r"larger than 100 bytes\. Received: .*p0\.xml"):
            read_voc(write_voc(tmp_path, 1))
