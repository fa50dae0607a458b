import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.training.data.boxes.small import CATEGORIES, NAMES, add_masks, mask_of, objects_of, write_coco
from training.data.boxes import masks
from training.data.boxes.coco import read_coco
from training.errors import DataError


@pytest.fixture
def folder(tmp_path):
    write_coco(tmp_path, "train2017", range(4))
    return write_coco(tmp_path, "val2017", range(4, 6))


class TestLayout:
    def test_examples(self, folder):
        train, validation, names = read_coco(folder)
        assert names == NAMES
        assert sorted(CATEGORIES.values()) == [CATEGORIES[name] for name in names]
        assert [example.id for example in train + validation] == [str(100 + n) for n in range(6)]
        for number, example in enumerate(train + validation):
            expected = objects_of(number)
            np.testing.assert_array_equal(example.boxes, [box for _, box in expected])
            assert [names[c] for c in example.classes] == [name for name, _ in expected]
            sides = example.boxes[:, 2:] - example.boxes[:, :2]
            np.testing.assert_array_equal(example.areas, 0.5 * sides.prod(axis=1))
        assert validation[0].path == str(folder / "val2017" / "000000000004.png")

    def test_against_pycocotools(self, folder, capsys):
        from pycocotools.coco import COCO

        coco = COCO(folder / "annotations" / "instances_train2017.json")
        categories = sorted(coco.getCatIds())
        for example in read_coco(folder).train:
            rows = coco.loadAnns(coco.getAnnIds(int(example.id)))
            boxes = np.array([row["bbox"] for row in rows])
            np.testing.assert_array_equal(example.boxes, np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
            assert [categories[c] for c in example.classes] == [row["category_id"] for row in rows]

    def test_crowds(self, tmp_path):
        def change(content):
            content["annotations"][0]["iscrowd"] = 1

        train, *_ = read_coco(write_coco(tmp_path, "train2017", [1, 3], change=change), validation_share=0.5)
        _, validation, _ = read_coco(tmp_path, validation_share=1.0)
        assert [example.crowd.tolist() for example in validation] == [[True, False], [False, False]]
        assert len(train) == 1

    def test_given_paths(self, folder):
        """Validation may also be missing."""
        train = (folder / "annotations" / "instances_val2017.json", folder / "val2017")
        assert [example.id for example in read_coco(train=train, validation_share=0.0).train] == ["104", "105"]

    def test_last_year_counts(self, folder):
        write_coco(folder, "train2014", range(3))
        assert len(read_coco(folder).train) == 4

    def test_share_is_held_out(self, tmp_path):
        train, validation, _ = read_coco(write_coco(tmp_path, "train", range(8)), validation_share=0.25)
        assert (len(train), len(validation)) == (6, 2)
        assert {example.id for example in train + validation} == {str(100 + n) for n in range(8)}


def polygon(annotation):
    """A triangle in the box of an annotation."""
    left, top, width, height = annotation["bbox"]
    return [left + 0.3, top + 0.4, left + width - 0.2, top + 2, left + 3.6, top + height - 0.1]


class TestMasks:
    def test_against_pycocotools(self, tmp_path, capsys):
        """Polygons, one or more, runs as numbers and as a string; also of crowds and of parts outside."""
        from pycocotools.coco import COCO

        def change(content):
            rows = content["annotations"]
            add_masks(content)
            rows[0]["segmentation"] = [polygon(rows[0])]
            rows[1]["segmentation"] = [polygon(rows[1]), [30, 20, 44.5, 20, 44.5, 41, 30, 41]]
            encoded = masks.encode([mask_of((3, 5, 22, 17))])
            rows[2] |= {"segmentation": {"size": [30, 40], "counts": encoded[0].decode()}, "iscrowd": 1}

        folder = write_coco(tmp_path, "train2017", range(4), change=change)
        coco = COCO(folder / "annotations" / "instances_train2017.json")
        train, *_ = read_coco(folder, masks=True, validation_share=0.0)
        assert [len(example.masks) for example in train] == [1, 2, 1, 2]
        for example in train:
            rows = coco.loadAnns(coco.getAnnIds(int(example.id)))
            expected = np.stack([coco.annToMask(row) for row in rows])
            np.testing.assert_array_equal(masks.decode(example.masks, 30, 40), expected)
            assert expected.any(axis=(1, 2)).all()
        assert train[1].crowd.tolist() == [False, True]

    def test_only_if_wanted(self, folder):
        write_coco(folder, "train2017", range(4), change=lambda c: c["annotations"][0].update(segmentation="nonsense"))
        assert {example.masks for example in read_coco(folder).train} == {None}

    def test_none(self, folder):
        """A file without any has no masks; a file without objects has all of theirs."""
        assert {example.masks for example in read_coco(folder, masks=True).train} == {None}
        write_coco(folder, "train2017", range(4), change=add_masks)
        write_coco(folder, "val2017", [4], objects=lambda number: [])
        assert [example.masks for example in read_coco(folder, masks=True).validation] == [[]]

    def test_some_are_missing(self, folder):
        def change(content):
            add_masks(content)
            for row, nothing in zip(content["annotations"][2:], ([], None, {})):
                row["segmentation"] = nothing
            del content["annotations"][5]["segmentation"]

        write_coco(folder, "train2017", range(4), change=change)
        message = (
            r"4 of its 6 have no segmentation, annotations 3, 4, 5, 6; .* or train with --head faster_rcnn\. "
            r"Received: .*_train2017\.json"
        )
        with pytest.raises(DataError, match=message):
            read_coco(folder, masks=True)

    def test_without_area(self, folder, caplog):
        """Left out like boxes without area."""

        def change(content):
            add_masks(content)
            content["annotations"][1]["segmentation"] = {"size": [30, 40], "counts": [1200]}
            content["annotations"][2]["segmentation"] = [[50, 2, 60, 2, 60, 9]]  # right of the picture
            content["annotations"][3]["bbox"] = [50, 2, 5, 5]

        train = read_coco(write_coco(folder, "train2017", range(4), change=change), masks=True).train
        assert [len(example.boxes) for example in train] == [1, 0, 0, 2]
        assert [len(example.masks) for example in train] == [1, 0, 0, 2]
        expected = np.stack([mask_of(box) for _, box in objects_of(3)])
        np.testing.assert_array_equal(masks.decode(train[3].masks, 30, 40), expected)
        assert "2 objects with a mask without area left out" in caplog.text
        assert "1 boxes outside of their picture left out" in caplog.text
        assert "2 pictures without boxes" in caplog.text

    def test_pictures_of_no_size(self, folder):
        """Of so many pixels, outlines of masks would take all memory, and runs would overflow."""

        def change(content):
            content["images"][0] |= {"width": 2**24, "height": 2**24}
            for row in content["annotations"]:
                row["segmentation"] = [[0, 0, 6e7, 0, 6e7, 6e7]]

        write_coco(folder, "train2017", range(4), change=change)
        message = r"annotation 1: .*at most 4294967295 pixels, it has 16777216 x 16777216\. Received: "
        with pytest.raises(DataError, match=message):
            read_coco(folder, masks=True)

    @pytest.mark.parametrize(
        ("segmentation", "reason"),
        [
            ("nonsense", "must be a list of polygons or an RLE, it is nonsense"),
            (7, "must be a list of polygons or an RLE, it is 7"),
            ([1, 2, 3, 4, 5, 6], "a polygon must be 6 or more numbers: x, y, x, y, ..., it is 1"),
            ([[1, 2, 3, 4]], "a polygon must be 6 or more numbers: x, y, x, y, ..., it is 4 numbers"),
            ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], "a polygon must be 6 or more numbers: .* it is 7 numbers"),
            ([[1, 2, 3, 4, 5, float("nan")]], "a polygon's coordinate must be a number, it is NaN"),
            ([[1, 2, 3, 4, 5, float("inf")]], "a polygon's coordinate must be a number up to 160, it is inf"),
            ([[1, 2, 3, 4, 5, -1e9]], "a polygon's coordinate must be a number up to 160, it is -1000000000"),
            ([[1, 2, 3, 4, 5, None]], "a polygon's coordinate must be a number up to 160, it is None"),
            ({"counts": [1200]}, "there is no 'size'"),
            ({"size": [30, 40]}, "there is no 'counts'"),
            ({"size": [40, 30], "counts": [1200]}, r"the size of its picture, \[30, 40\], it has \[40, 30\]"),
            ({"size": None, "counts": [1200]}, "the size of its picture, .* it has None"),
            ({"size": [30, 40], "counts": [1199]}, "add up to its 30 x 40 pixels, they have 1199"),
            ({"size": [30, 40], "counts": [1300, -100]}, "add up to its 30 x 40 pixels"),
            ({"size": [30, 40], "counts": [1200.0]}, r"a string or whole numbers, they are \[1200\.0\]"),
            ({"size": [30, 40], "counts": None}, "a string or whole numbers, they are None"),
            ({"size": [30, 40], "counts": "0"}, "add up to its 30 x 40 pixels, they have 0"),
            ({"size": [30, 40], "counts": "zz\xe9"}, "characters that COCO's run lengths do not have"),
            ({"size": [30, 40], "counts": "\ud800"}, "surrogates not allowed"),
        ],
        ids=range(20),
    )
    def test_segmentations_of_any_kind(self, folder, segmentation, reason):
        def change(content):
            add_masks(content)
            content["annotations"][4]["segmentation"] = segmentation

        write_coco(folder, "val2017", range(4), change=change)
        write_coco(folder, "train2017", range(4), change=add_masks)
        message = rf"a COCO annotation file: annotation 5: .*{reason}.*Received: .*instances_val2017\.json"
        with pytest.raises(DataError, match=message):
            read_coco(folder, masks=True)


class TestBadInput:
    def read(self, folder, change):
        return read_coco(write_coco(folder, "train2017", range(4), change=change))

    def test_boxes_are_clipped_dropped_and_counted(self, folder, caplog):
        def change(content):
            boxes = [[30, 20, 20, 20], [-9, 0, 9, 9], [3, 3, 0, 4]]
            for row, box in zip(content["annotations"], boxes):
                row["bbox"] = box

        train = self.read(folder, change).train
        np.testing.assert_array_equal(train[0].boxes, [[30, 20, 40, 30]])
        assert [len(example.boxes) for example in train] == [1, 0, 1, 2]
        assert "1 boxes clipped at the border of their picture" in caplog.text
        assert "1 boxes outside of their picture left out" in caplog.text
        assert "1 boxes without area left out" in caplog.text
        assert "1 pictures without boxes" in caplog.text

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda c: c["annotations"][0].update(category_id=5), "refer to categories that it does not list: 5"),
            (lambda c: c["annotations"][0].update(image_id=5), "refer to images that it does not list: 5"),
            (
                lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
                r"annotation 1: bbox must be 4 numbers: .*\[1, 2, 3\]",
            ),
            (lambda c: c["annotations"][1].pop("bbox"), "annotation 2: there is no 'bbox'"),
            (lambda c: c["images"][1].pop("file_name"), "image 101: there is no 'file_name'"),
            (lambda c: c.pop("categories"), "there is no 'categories'"),
            (lambda c: c.update(images=[], annotations=[]), "no images"),
            (lambda c: c["categories"][0].update(name=["red"]), "names of its categories are not strings"),
            (lambda c: c["categories"].append({**c["categories"][0], "name": "x"}), "categories of the same id: "),
            (lambda c: c["images"].append({**c["images"][0], "file_name": "x.jpg"}), "images of the same id: "),
        ],
    )
    def test_files_that_are_no_annotations(self, folder, change, reason):
        with pytest.raises(DataError, match=rf"{reason}.*Received: .*instances_train2017\.json"):
            self.read(folder, change)

    @pytest.mark.parametrize(
        ("place", "value", "reason"),
        [
            (("annotations", 0, "bbox", 0), None, "bbox must be a number up to 16777216, it is None"),
            (("annotations", 0, "bbox", 0), "1", "bbox must be a number"),
            (("annotations", 0, "bbox", 0), True, "bbox must be a number"),
            (("annotations", 0, "bbox", 3), 10**400, "bbox must be a number up to 16777216, it is 1000"),
            (("annotations", 0, "bbox", 3), -1e39, "bbox must be a number"),
            (("annotations", 0, "bbox", 3), float("inf"), "bbox must be a number"),
            (
                ("annotations", 0, "bbox"),
                None,
                "annotation 1: bbox must be 4 numbers: left, top, width, height, it is None",
            ),
            (("annotations", 0, "bbox"), "1234", "bbox must be 4 numbers"),
            (("annotations", 0, "area"), [1], "area must be a number"),
            (("annotations", 0, "iscrowd"), "yes", "iscrowd must be 0 or 1, it is yes"),
            (("annotations", 0, "image_id"), [100], "unhashable"),
            (("annotations", 0, "category_id"), {}, "unhashable"),
            (("annotations", 0), None, "not subscriptable"),
            (("annotations", 0), [], "list indices"),
            (("annotations",), None, "not iterable"),
            (("annotations",), 3, "not iterable"),
            (("images", 0, "width"), None, "image 100: width must be a whole number from 1 to 16777216, it is None"),
            (("images", 0, "width"), 0, "width must be a whole number"),
            (("images", 0, "height"), 30.5, "height must be a whole number"),
            (("images", 0, "height"), 10**400, "height must be a whole number"),
            (("images", 0, "height"), float("nan"), "height must be a whole number"),
            (("images", 0, "file_name"), None, "names of its files are not strings"),
            (("images", 0, "file_name"), "a\0b", "names of its files are not strings"),
            (("images", 0, "file_name"), "\ud800", "surrogates not allowed"),
            (("images", 0, "id"), None, "refer to images that it does not list"),
            (("images", 0), "text", "indices must be integers"),
            (("categories", 0, "id"), None, "not supported between"),
            (("categories", 0, "name"), "", "names of its categories are not strings"),
            (("categories", 0, "name"), "\ud800", "surrogates not allowed"),
        ],
    )
    def test_values_of_any_kind(self, folder, place, value, reason):
        def change(content):
            for key in place[:-1]:
                content = content[key]
            content[place[-1]] = value

        with pytest.raises(
            DataError, match=rf"a COCO annotation file: .*{reason}.*Received: .*instances_train2017\.json"
        ):
            self.read(folder, change)

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 100_000,
            '{"images": ' + "[" * 100_000,
            "null",
            "3",
            "[]",
            '"text"',
            "{}",
            "1" * 10_000,
            "\x00\xff",
            '{"images": null, "annotations": null, "categories": null}',
        ],
        ids=range(10),
    )
    def test_json_of_any_shape(self, folder, text):
        (folder / "annotations" / "instances_train2017.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=r"a COCO annotation file: .*Received: .*instances_train2017\.json"):
            read_coco(folder)

    def test_nothing_where_a_value_may_be_missing(self, folder):
        train = self.read(folder, lambda c: [row.update(area=None, iscrowd=None) for row in c["annotations"]]).train
        for example in train:
            sides = example.boxes[:, 2:] - example.boxes[:, :2]
            np.testing.assert_array_equal(example.areas, sides.prod(axis=1))
            assert not example.crowd.any()

    def test_sides_written_with_a_point(self, folder):
        assert self.read(folder, lambda c: c["images"][0].update(width=40.0)).train[0].width == 40

    def test_two_categories_of_one_name(self, folder):
        message = r"classes must have different names\. Received: .*instances_train2017\.json with red more than once"
        with pytest.raises(DataError, match=message):
            self.read(folder, lambda content: content["categories"][1].update(name="red"))

    def test_no_json(self, folder):
        (folder / "annotations" / "instances_val2017.json").write_text("[1, 2")
        with pytest.raises(DataError, match=r"a COCO annotation file: .*Received: .*instances_val2017\.json"):
            read_coco(folder)

    def test_missing_files(self, folder, tmp_path):
        with pytest.raises(DataError, match=r"no file annotations/instances_train\*\.json.*Received: .*nowhere"):
            read_coco(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"file of annotations is missing. Received: .*none\.json"):
            read_coco(train=(folder / "none.json", folder / "train2017"))
        (folder / "val2017").rename(folder / "other")
        with pytest.raises(DataError, match=r"must lie in a folder of this name. Received: .*val2017"):
            read_coco(folder)

    def test_other_classes_in_validation(self, folder):
        write_coco(folder, "val2017", [4], change=lambda c: c["categories"].append({"id": 91, "name": "purple"}))
        with pytest.raises(DataError, match="Validation has unknown classes: purple"):
            read_coco(folder)

    def test_other_numbers_in_validation(self, folder):
        write_coco(folder, "val2017", [0], change=lambda c: c["categories"].append({"id": 8, "name": "red"}))
        with pytest.raises(DataError, match="number their classes differently"):
            read_coco(folder)


def test_pictures_that_are_none(folder, caplog):
    """A pipe would be waited for, a device read without end."""
    images = json.loads((folder / "annotations/instances_train2017.json").read_text())["images"]
    pipe, tiff = (folder / "train2017" / image["file_name"] for image in images[:2])
    pipe.unlink()
    os.mkfifo(pipe)
    content = (folder / "annotations/instances_train2017.json").read_text()
    content = content.replace(tiff.name, "it.tif").replace(images[2]["file_name"], "/dev/zero")
    (folder / "annotations/instances_train2017.json").write_text(content)
    Image.new("L", (40, 30)).save(folder / "train2017/it.tif")
    train = read_coco(folder).train
    assert [example.path for example in train] == [str(folder / "train2017" / i["file_name"]) for i in images[3:]]
    assert f"pictures: 1 .tif; neither files nor folders that can be read: '{pipe}', '/dev/zero'" in caplog.text
